//! Connections that are opened and not used, and those that hold what others need.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gateway, Honest, Options, Reply, Upstream, eventually, frames, raw, within};

const ATTACKER: &str = "127.0.0.2";
const MIB: u64 = 1 << 20;

/// What a connection sends before it falls silent.
const BEGINNINGS: [(&str, &[u8]); 4] = [
    ("nothing", b""),
    ("half a preface", b"PRI * HTTP/2.0\r\n"),
    ("a preface without settings", frames::PREFACE),
    ("half a request of HTTP/1.1", b"POST / HTTP/1.1\r\nhost: g"),
];

async fn open(from: &str, to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let from: IpAddr = from.parse().unwrap();
    let mut stream = raw::connect_from(from, to).await.unwrap();
    // The gateway may have closed it already.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Waits until the gateway has closed a connection.
async fn is_closed(mut stream: TcpStream) {
    frames::closed(&mut stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_closed() {
    let upstream = Upstream::plain();
    let settings = "[server]\npreface_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut silent = Vec::new();
    for (_, bytes) in BEGINNINGS {
        for _ in 0..50 {
            silent.push(open(ATTACKER, gateway.grpc, bytes).await);
            // The admin listener has 64 connections: later ones replace the first.
            silent.push(open(ATTACKER, gateway.admin, bytes).await);
        }
    }
    for stream in silent {
        is_closed(stream).await;
    }
    let closed = r#"drawbridge_closed_connections_total{listener="grpc",reason="no_preface"}"#;
    assert!(gateway.metric(closed).await >= 100.0);
    assert!(gateway.admin_get("/readyz").await.is_ok());
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}

/// The issue's attack, with the default timeouts: the limits alone hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_silent_connections_do_not_keep_others_out() {
    let upstream = Upstream::plain();
    let settings = "[server]\nmax_connections = 500\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    // From the honest client's own address, too.
    let mut open_connections = Vec::new();
    for number in 0..3_000_u32 {
        let from = match number % 3 {
            0 => "127.0.0.1".to_owned(),
            n => format!("127.0.{n}.{}", number % 250 + 1),
        };
        let (name, bytes) = BEGINNINGS[number as usize % BEGINNINGS.len()];
        let listener = match number % 10 {
            0 => gateway.admin,
            _ => gateway.grpc,
        };
        open_connections.push((name, open(&from, listener, bytes).await));
        if open_connections.len() > 900 {
            // This process has descriptors for so many: the oldest are closed by then.
            let (_, oldest) = open_connections.remove(0);
            drop(oldest);
        }
    }
    let open = gateway.usage().descriptors;
    // 500 of clients and 64 of the admin listener, and an eighth of them that is closing.
    assert!(
        open <= before.descriptors + 564 / 8 * 9 + 2,
        "{open} after {before:?}"
    );
    assert!(gateway.admin_get("/livez").await.is_ok());
    honest.succeeds(8).await;
    drop(open_connections);
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed() {
    let upstream = Upstream::plain();
    let settings = "[server]\nconnection_idle_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut connections = Vec::new();
    for number in 0..100 {
        let connection = raw::connect(gateway.grpc).await.unwrap();
        if number % 2 == 0 {
            let call = raw::request("grpc.health.v1.Health/Check");
            assert_eq!(connection.unary(call, b"").await.unwrap().code, 0);
        }
        connections.push(connection);
    }
    // Pings are no calls.
    let mut pinging = frames::connect(gateway.grpc).await;
    let pings = tokio::spawn(async move {
        let ping = frames::frame(frames::PING, 0, 0, &[7; 8]);
        while pinging.write_all(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    eventually("idle connections are closed", async || {
        let closed = connections.iter().all(raw::Connection::is_closed);
        (closed && pings.is_finished()).then_some(())
    })
    .await;
    let closed = r#"drawbridge_closed_connections_total{listener="grpc",reason="idle"}"#;
    assert!(gateway.metric(closed).await >= 101.0);
    honest.finish().await;
    gateway.recovers(before).await;
}

/// A watch, however quiet, keeps its connection; so does a call that takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_calls_are_not_idle() {
    let upstream = Upstream::plain();
    let settings = "[server]\nconnection_idle_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let connection = raw::connect(gateway.grpc).await.unwrap();
    let watch = raw::request("grpc.health.v1.Health/Watch");
    let watch = connection.send(watch, b"").await.unwrap();
    let mut body = raw::head(watch).await.unwrap().into_body();
    assert!(body.data().await.unwrap().is_ok());
    // Three other connections, one after the other, have been closed for idling.
    for _ in 0..3 {
        let idle = raw::connect(gateway.grpc).await.unwrap();
        eventually("an idle connection is closed", async || {
            idle.is_closed().then_some(())
        })
        .await;
    }
    let call = raw::request("grpc.health.v1.Health/Check");
    assert_eq!(connection.unary(call, b"").await.unwrap().code, 0);
    assert!(!connection.is_closed());
}

/// Connections that all have a call cannot make room: further ones of the address are refused,
/// and another address is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_has_a_limit_of_busy_connections() {
    let upstream = Upstream::plain();
    let settings = "[server]\nmax_connections = 40\nmax_connections_per_address = 20\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut busy = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        let stream = open(ATTACKER, gateway.grpc, b"").await;
        let Ok(connection) = raw::handshake(stream, &h2::client::Builder::new()).await else {
            refused += 1;
            continue;
        };
        let watch = raw::request("grpc.health.v1.Health/Watch");
        let opened = match connection.send(watch, b"").await {
            Ok(response) => response.await,
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        match opened {
            Ok(watch) => busy.push((connection, watch)),
            Err(_) => refused += 1,
        }
    }
    assert_eq!((busy.len(), refused), (20, 40));
    let metric = r#"drawbridge_refused_connections_total{listener="grpc",limit="per_address"}"#;
    assert!(gateway.metric(metric).await >= 40.0);
    let log = gateway.log();
    assert_eq!(log.matches("connection refused").count(), 1, "{log}");
    honest.succeeds(8).await;
    drop(busy);
    honest.finish().await;
    gateway.recovers(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_end_are_closed() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let upstream = Upstream::plain();
    let gateway = Gateway::start_with(Options {
        listen: "[listen.tls]\ncert_file = \"c.pem\"\nkey_file = \"k.pem\"\n".to_owned(),
        config: "[server]\ntls_handshake_timeout_secs = 1\npreface_timeout_secs = 1\n".to_owned()
            + &upstream.heat(""),
        files: vec![
            ("c.pem", certificate.cert.pem().into_bytes()),
            (
                "k.pem",
                certificate.signing_key.serialize_pem().into_bytes(),
            ),
        ],
        ..Options::default()
    });
    let before = gateway.usage();
    let mut open_connections = Vec::new();
    for bytes in [&b""[..], &[22, 3, 1], &[22, 3, 1, 2, 0, 1, 0, 1]] {
        for _ in 0..50 {
            open_connections.push(open(ATTACKER, gateway.grpc, bytes).await);
        }
    }
    // After the handshake: nothing.
    let config = tls_client(certificate.cert.der());
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    for _ in 0..20 {
        let stream = open(ATTACKER, gateway.grpc, b"").await;
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let mut bytes = Vec::new();
        // The end may be without close_notify.
        let _ = within("the connection ends", stream.read_to_end(&mut bytes)).await;
    }
    for stream in open_connections {
        is_closed(stream).await;
    }
    gateway.recovers(before).await;
}

fn tls_client(ca: &rustls::pki_types::CertificateDer<'static>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// With 64 descriptors, 100 connections and as many calls to an upstream that hangs, others
/// are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_descriptors_are_shared() {
    let upstream = Upstream::plain();
    let hanging = Upstream::start(|_| Reply::Hang);
    let second = hanging.heat("").replace("\"heat\"\nf", "\"hanging\"\nf");
    let first = upstream.heat("default = true");
    let gateway = Gateway::start_with(Options {
        config: first + &second,
        max_descriptors: Some(64),
        ..Options::default()
    });
    let log = gateway.log();
    assert!(log.contains("raise the limit of open descriptors"), "{log}");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(open(ATTACKER, gateway.grpc, frames::PREFACE).await);
    }
    let attacker = raw::connect(gateway.grpc).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..100 {
        let mut call = raw::attack(
            "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment",
        );
        let name = "hanging".parse().unwrap();
        call.headers_mut().insert("drawbridge-upstream", name);
        let message = raw::string_field(2, "d");
        calls.push(attacker.send(call, message).await.unwrap());
    }
    eventually("the upstream has calls", async || {
        (hanging.requests() > 0).then_some(())
    })
    .await;
    honest.succeeds(8).await;
    assert!(gateway.admin_get("/metrics").await.is_ok());
    assert!(gateway.usage().descriptors < 64);
    honest.finish().await;
}

/// Where the process has no descriptor left at all, accepting pauses: it does not spin, says so
/// once and goes on when there are some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepting_pauses_without_descriptors() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&upstream.heat(""));
    let pid = Pid::from_raw(gateway.id() as i32).unwrap();
    let limit = |current| {
        let old = prlimit(
            Some(pid),
            Resource::Nofile,
            Rlimit {
                current: Some(current),
                maximum: Some(4_096),
            },
        );
        old.unwrap()
    };
    limit(4_096);
    let _busy = raw::connect(gateway.grpc).await.unwrap();
    limit(3);
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(open(ATTACKER, gateway.grpc, frames::PREFACE).await);
    }
    eventually("accepting has paused", async || {
        gateway.log().contains("connections wait").then_some(())
    })
    .await;
    // A process that spins uses most of a core of the time that passes.
    let (started, cpu_before) = (Instant::now(), gateway.cpu_time());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (elapsed, cpu) = (started.elapsed(), gateway.cpu_time() - cpu_before);
    assert!(cpu < elapsed / 4, "{cpu:?} of {elapsed:?}");
    limit(4_096);
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(4).await;
    drop(waiting);
    honest.finish().await;
    let log = gateway.log();
    assert_eq!(log.matches("connections wait").count(), 1, "{log}");
    let pauses = r#"drawbridge_accept_pauses_total{listener="grpc"}"#;
    assert!(gateway.metric(pauses).await >= 1.0);
}
