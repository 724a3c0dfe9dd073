//! Secrets that are replaced in their files while the gateway serves.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use drawbridge::Config;
use drawbridge::server::Reloaded;
use serde_json::json;
use tonic::Code;

use crate::drain::Serve;
use crate::support::recorder::{Answer, Seen};
use crate::support::tls::{Ca, rcgen_ca, tls_connect};
use crate::support::{Gateway, Recorder};

const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// An upstream and its identity service, whose only user has one password at a time, also its
/// token.
struct Api {
    recorder: Recorder,
    password: Arc<Mutex<String>>,
}

impl Api {
    async fn start(password: &str) -> Self {
        let password = Arc::new(Mutex::new(password.to_owned()));
        let current = password.clone();
        let answer = move |seen: &Seen| {
            let password = current.lock().unwrap().clone();
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("u:{password}"));
            let is_login = seen.path().ends_with("/auth/tokens");
            let is_right = match is_login {
                true => String::from_utf8_lossy(&seen.body).contains(&format!("\"{password}\"")),
                false => {
                    seen.header("x-auth-token") == password
                        || seen.header("authorization") == format!("Basic {encoded}")
                }
            };
            match (is_right, is_login) {
                (false, _) => Answer::json(401, &json!({"error": {"message": "no"}})),
                (true, true) => {
                    let token = json!({"token": {"expires_at": "2099-01-01T00:00:00Z"}});
                    Answer::json(201, &token).with("x-subject-token", &password)
                }
                (true, false) => Answer::json(200, &json!({"software_deployment": {"id": "d"}})),
            }
        };
        Self {
            recorder: Recorder::start(answer).await,
            password,
        }
    }
}

/// The files of each kind of credentials that is read from one.
#[tokio::test]
async fn changed_secret_is_read_after_a_401() {
    let clouds = |url: &str, password: &str| {
        format!(
            "clouds: {{c: {{auth: {{auth_url: '{url}/v3', username: u, password: '{password}', \
             user_domain_id: d, project_id: p}}}}}}"
        )
    };
    for (auth, requests) in [
        ("kind = 'token', token_file = 'secret'", 2),
        (
            "kind = 'basic', username = 'u', password_file = 'secret'",
            2,
        ),
        // The rejected call, the login with the new password, and the call again.
        (
            "kind = 'keystone', auth_url = 'URL/v3', username = 'u', password_file = 'secret', \
             project_id = 'p'",
            3,
        ),
        ("cloud = 'c'", 3),
    ] {
        let api = Api::start("first").await;
        let url = api.recorder.url();
        let folder = tempfile::tempdir().unwrap();
        let replace = |password: &str| {
            write(folder.path(), "secret", &format!("{password}\n"));
            write(folder.path(), "clouds.yaml", &clouds(&url, password));
        };
        replace("first");
        let text = format!(
            "[server]\nhealth_check_interval_secs = 0\n[listen]\ngrpc = '127.0.0.1:0'\n\
             [[upstream]]\nname = 'u'\nfamily = 'heat'\nendpoint = '{url}'\nproject_id = 'p'\n\
             proxy_from_env = false\nauth = {{ {} }}\n",
            auth.replace("URL", &url)
        );
        write(folder.path(), "d.toml", &text);
        let file = folder.path().join("clouds.yaml").display().to_string();
        let env = |name: &str| (name == "OS_CLIENT_CONFIG_FILE").then(|| file.clone());
        let config = Config::load(&folder.path().join("d.toml"), &env).unwrap();
        let gateway = Gateway::start(config).await;
        let call = async || {
            gateway
                .client
                .call(GET, json!({"deployment_id": "d"}))
                .await
        };
        call().await.unwrap();
        api.recorder.take();

        *api.password.lock().unwrap() = "second".to_owned();
        let rejected = call().await.unwrap_err();
        assert_eq!(
            rejected.code(),
            Code::FailedPrecondition,
            "{auth}: {rejected}"
        );
        replace("second");
        // A rejected login waits before the next one, unless the file has changed.
        api.recorder.take();
        call()
            .await
            .unwrap_or_else(|status| panic!("{auth}: {status}"));
        let seen = api.recorder.take();
        assert!(
            !seen.is_empty() && seen.len() <= requests,
            "{auth}: {seen:?}"
        );

        *api.password.lock().unwrap() = "third".to_owned();
        replace("third");
        call()
            .await
            .unwrap_or_else(|status| panic!("{auth}: {status}"));
        let seen = api.recorder.take();
        assert_eq!(seen.len(), requests, "{auth}: {seen:?}");
        assert_eq!(seen[0].method, "GET", "{auth}: with the old secret");
    }
}

/// Writes the files of `[listen]`: a certificate for `localhost` of this CA, and the tokens.
fn write_listen_files(folder: &Path, ca: &Ca, client_ca: &Ca, tokens: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    let (certificate, key) = ca.issue("localhost");
    write(folder, "server.pem", &certificate);
    write(folder, "server.key", &key);
    write(folder, "clients.pem", &client_ca.pem);
    write(folder, "tokens", tokens);
    let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes());
    der.unwrap().to_vec()
}

const LISTEN: &str = "[server]\nhealth_check_interval_secs = 0\n[listen]\ngrpc = '127.0.0.1:0'\n\
    [listen.tls]\ncert_file = 'server.pem'\nkey_file = 'server.key'\n\
    client_ca_file = 'clients.pem'\n[listen.clients]\ntokens_file = 'tokens'\n\
    [[upstream]]\nname = 'u'\nfamily = 'heat'\nendpoint = 'http://127.0.0.1:1'\n\
    project_id = 'p'\nauth = { kind = 'none' }\n";

async fn channel(
    address: std::net::SocketAddr,
    ca: &Ca,
    client_ca: &Ca,
) -> Option<tonic::transport::Channel> {
    use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
    let (certificate, key) = client_ca.issue("client");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.pem))
        .identity(Identity::from_pem(certificate, key))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.ok()
}

/// Lists the upstreams with a token. Returns whether it is accepted; none without a connection.
async fn accepts(channel: Option<tonic::transport::Channel>, token: &str) -> Option<bool> {
    use drawbridge::api::drawbridge::v1::ListUpstreamsRequest;
    use drawbridge::api::drawbridge::v1::gateway_service_client::GatewayServiceClient;
    let mut request = tonic::Request::new(ListUpstreamsRequest::default());
    request
        .metadata_mut()
        .insert("drawbridge-token", token.parse().unwrap());
    match GatewayServiceClient::new(channel?)
        .list_upstreams(request)
        .await
    {
        Ok(_) => Some(true),
        Err(status) if status.code() == Code::Unauthenticated => Some(false),
        // A client whose certificate is rejected learns it after its handshake.
        Err(_) => None,
    }
}

#[tokio::test]
async fn changed_certificates_and_tokens_need_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (ca, other_ca) = (rcgen_ca(), rcgen_ca());
    let (clients, other_clients) = (rcgen_ca(), rcgen_ca());
    write_listen_files(path, &ca, &clients, "one\n");
    write(path, "d.toml", LISTEN);
    let config = Config::load(&path.join("d.toml"), &|_| None).unwrap();
    let running = crate::support::start(config).await.unwrap();
    let address = running.grpc;
    let open = channel(address, &ca, &clients).await;
    assert_eq!(accepts(open.clone(), "one").await, Some(true));
    assert_eq!(accepts(open.clone(), "two").await, Some(false));

    // Broken files: the last ones stay, and nothing applies in part.
    let (other_certificate, _) = other_ca.issue("localhost");
    write(path, "server.pem", &other_certificate);
    write(path, "tokens", "two\n");
    assert_eq!(running.reload.reload().await, Reloaded::Refused);
    assert_eq!(accepts(open.clone(), "one").await, Some(true));
    assert_eq!(
        accepts(channel(address, &ca, &clients).await, "one").await,
        Some(true)
    );

    write_listen_files(path, &other_ca, &other_clients, "two\nthree\n");
    assert_eq!(running.reload.reload().await, Reloaded::Applied);
    // New connections get the new certificate, and clients need one of the new CA.
    assert_eq!(
        accepts(channel(address, &other_ca, &other_clients).await, "two").await,
        Some(true)
    );
    assert_eq!(
        accepts(channel(address, &ca, &other_clients).await, "two").await,
        None
    );
    assert_eq!(
        accepts(channel(address, &other_ca, &clients).await, "two").await,
        None
    );
    // Open connections stay, with the new tokens.
    assert_eq!(accepts(open.clone(), "three").await, Some(true));
    assert_eq!(accepts(open, "one").await, Some(false));

    write(path, "tokens", "# nobody\n");
    assert_eq!(running.reload.reload().await, Reloaded::Refused);
    let client = channel(address, &other_ca, &other_clients).await;
    assert_eq!(accepts(client.clone(), "two").await, Some(true));
    assert_eq!(accepts(client, "").await, Some(false));
    running.stop().await.unwrap();
}

/// The log says once what is wrong with files that are being replaced.
#[tokio::test(flavor = "multi_thread")]
async fn hangup_rereads_the_files_of_listen() {
    let folder = tempfile::tempdir().unwrap();
    let ca = rcgen_ca();
    let first = write_listen_files(folder.path(), &ca, &ca, "one\n");
    let text = LISTEN.replace("client_ca_file = 'clients.pem'\n", "");
    let mut gateway = Serve::start_in(folder, &text, Stdio::piped());
    let address = gateway.address();
    let served = async || {
        let stream = tls_connect(address, &ca, &["h2"]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(served().await, first);
    let second = write_listen_files(gateway.folder.path(), &ca, &ca, "one\n");
    gateway.send("HUP");
    gateway.wait_for("the files of listen.tls have changed");
    gateway.wait_for("SIGHUP: the configuration and its files were read again");
    assert_eq!(served().await, second);
    write(gateway.folder.path(), "server.key", "nothing");
    gateway.send("HUP");
    gateway.wait_for("the changed configuration is invalid: the last one stays");
    gateway.wait_for("contains no private key in PEM");
    gateway.wait_for("SIGHUP: the configuration or a file of it is invalid: the last one stays");
    assert_eq!(served().await, second);
}
