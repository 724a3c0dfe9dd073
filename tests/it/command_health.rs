//! `drawbridge health`, the built binary.

use std::process::Output;

use drawbridge::config::Tls;
use tokio::net::TcpListener;

use crate::command_call::{output, run};
use crate::support::recorder::{Answer, Recorder};
use crate::support::tls::rcgen_ca;
use crate::support::{Gateway, nowhere, settings, start, upstream};

fn text(out: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_says_what_the_health_is() {
    let recorder = Recorder::fixed(Answer::json(200, &serde_json::json!({}))).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let heat = "openstack.orchestration.v1.StackService";
    let jp1ao = "hitachi.automation.v1.TaskService";
    for (args, code, out, err) in [
        (&["health"][..], 0, "SERVING\n", ""),
        (&["health", heat], 0, "SERVING\n", ""),
        // Without an upstream.
        (&["health", jp1ao], 4, "NOT_SERVING\n", ""),
        (&["health", "no.Such"], 3, "", "NOT_FOUND: "),
        (&["health", "--timeout", "0"], 2, "", "longer than 0"),
        (&["health", "--cert", "c.pem"], 2, "", "are for https://"),
    ] {
        let result = text(&run(&gateway, args).await);
        assert_eq!(
            (result.0, &*result.1),
            (Some(code), out),
            "{args:?} {result:?}"
        );
        assert!(result.2.contains(err), "{args:?} {result:?}");
    }
    let nowhere = nowhere().to_string();
    let result = text(&run(&gateway, &["health", "--gateway", &nowhere]).await);
    assert_eq!(result.0, Some(2), "{result:?}");
    assert!(result.2.contains("cannot reach the gateway"), "{result:?}");
    // A port that accepts, and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let args = ["health", "--gateway", &address, "--timeout", "1"];
    let result = text(&run(&gateway, &args).await);
    assert_eq!(result.0, Some(124), "{result:?}");
}

/// A probe in the container calls loopback, where the certificate has the name of the service.
/// Health needs no client token.
#[tokio::test(flavor = "multi_thread")]
async fn probe_checks_the_name_of_the_certificate() {
    let recorder = Recorder::fixed(Answer::json(200, &serde_json::json!({}))).await;
    let ca = rcgen_ca();
    let (certificate, key) = ca.issue("gateway.example");
    let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
    config.tls = Some(Tls {
        certificate: certificate.into_bytes(),
        key: key.into(),
        client_ca: None,
    });
    config.client_tokens = vec!["a-token-of-a-client".into()];
    let running = start(config).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &ca.pem).unwrap();
    let url = format!("https://{}", running.grpc);
    let flags = ["--gateway", &url, "--ca", file.to_str().unwrap()];
    let named = [&["health", "--server-name", "gateway.example"], &flags[..]].concat();
    for (args, code, want) in [
        (&named, 0, "SERVING\n"),
        (&[&["health"], &flags[..]].concat(), 2, "not valid for name"),
    ] {
        let mut probe = std::process::Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        probe.args(args).env_clear();
        let result = text(&output(probe).await);
        assert_eq!(result.0, Some(code), "{result:?}");
        assert!(
            format!("{}{}", result.1, result.2).contains(want),
            "{result:?}"
        );
    }
    running.stop().await.unwrap();
}
