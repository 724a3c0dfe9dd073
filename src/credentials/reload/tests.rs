use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::*;
use crate::credentials::credential::Authorization;
use crate::credentials::{AkSk, Credential, Credentials};
use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::http_client::Transport;

/// Files whose contents the test sets.
#[derive(Clone)]
struct Files(Arc<Mutex<Result<Settings, String>>>);

impl Files {
    fn new(settings: Settings) -> Self {
        Self(Arc::new(Mutex::new(Ok(settings))))
    }

    fn write(&self, settings: Result<Settings, String>) {
        *self.0.lock().unwrap() = settings;
    }

    fn credentials(&self) -> Credentials {
        let files = self.clone();
        let source = SettingsSource::new(move || files.0.lock().unwrap().clone());
        let settings = source.read().unwrap();
        let transport = crate::http_client::Settings {
            proxy_from_env: false,
            ..crate::http_client::Settings::default()
        };
        let transport = Transport::new(&transport).unwrap();
        Credentials::new(settings, Some(source), None, None, transport)
    }
}

fn token(token: &str) -> Settings {
    Settings::Token {
        header: HeaderName::from_static("x-auth-token"),
        token: token.into(),
    }
}

async fn get(credentials: &Credentials) -> Arc<Credential> {
    let deadline = Deadline::after(Duration::from_secs(5));
    let client = Downstream::default();
    credentials.get(&client, deadline).await.unwrap()
}

fn header(credential: &Credential) -> HeaderValue {
    match &credential.authorization {
        Authorization::Headers(headers) => headers[0].1.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_read_after_a_rejection() {
    let basic = |password: &str| Settings::Basic {
        username: "u".into(),
        password: password.into(),
    };
    let hsso = |password: &str| Settings::Hsso {
        username: "u".into(),
        password: password.into(),
    };
    let kinds: [&dyn Fn(&str) -> Settings; 3] = [&token, &basic, &hsso];
    for settings in kinds {
        let files = Files::new(settings("old"));
        let credentials = files.credentials();
        let old = get(&credentials).await;
        assert!(!credentials.invalidate(&old), "nothing has changed");
        files.write(Ok(settings("new")));
        assert_eq!(header(&*get(&credentials).await), header(&old));
        assert!(credentials.invalidate(&old));
        let new = get(&credentials).await;
        assert_ne!(header(&new), header(&old));
        // Another call was rejected with the old one, too.
        assert!(credentials.invalidate(&old));
        assert!(!credentials.invalidate(&new));
        assert_eq!(header(&*get(&credentials).await), header(&new));
    }
}

#[tokio::test(start_paused = true)]
async fn changed_file_is_read_after_the_interval() {
    let files = Files::new(token("old"));
    let credentials = files.credentials();
    files.write(Ok(token("new")));
    assert_eq!(header(&*get(&credentials).await), "old");
    tokio::time::advance(INTERVAL).await;
    assert_eq!(header(&*get(&credentials).await), "new");
    // A file that is being replaced keeps the last secret.
    for problem in ["is empty", "does not exist"] {
        files.write(Err(problem.to_owned()));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(header(&*get(&credentials).await), "new");
    }
    files.write(Ok(token("newest")));
    tokio::time::advance(INTERVAL).await;
    assert_eq!(header(&*get(&credentials).await), "newest");
}

/// Five rejected signatures lock an access key: only another one is tried.
#[tokio::test(start_paused = true)]
async fn rejected_signature_is_repeated_with_another_key_only() {
    let keys = |secret: &str| {
        Settings::AkSk(AkSk {
            access_key: "AK".into(),
            secret_key: secret.into(),
            security_token: None,
            project_id: None,
            domain_id: None,
            iam_endpoint: None,
            region: None,
        })
    };
    let files = Files::new(keys("old"));
    let credentials = files.credentials();
    let old = get(&credentials).await;
    assert!(!credentials.invalidate(&old));
    files.write(Ok(keys("new")));
    assert!(credentials.invalidate(&old));
    assert!(!Arc::ptr_eq(&get(&credentials).await, &old));
}

/// A rejected login is repeated at once if the password has changed, without its pause.
#[tokio::test]
async fn rejected_login_is_repeated_with_another_password() {
    use crate::http_client::test_server::{TestResponse, TestServer, reply};
    let login = r#"{"access": {"token": {"id": "T"}}}"#;
    let responses = VecDeque::from([
        TestResponse::Keep(reply(401, &[], "{}")),
        TestResponse::Keep(reply(200, &[], login)),
    ]);
    let mut server = TestServer::start(responses).await;
    let rackspace = |password: &str, url: &str| {
        Settings::Rackspace(crate::credentials::Rackspace {
            auth_url: server.url(url),
            username: "u".into(),
            secret: RackspaceSecret::Password(password.into()),
            tenant_id: None,
            region: None,
        })
    };
    let files = Files::new(rackspace("old", "/"));
    let credentials = files.credentials();
    let deadline = Deadline::after(Duration::from_secs(20));
    let client = Downstream::default();
    let rejected = credentials.get(&client, deadline).await;
    assert!(rejected.is_err());
    // Another address of the login needs a restart, with its checks.
    files.write(Ok(rackspace("new", "/other")));
    assert!(credentials.get(&client, deadline).await.is_err());
    files.write(Ok(rackspace("new", "/")));
    assert_eq!(header(&*get(&credentials).await), "T");
    for password in ["old", "new"] {
        let (_, body) = server.request().await;
        assert!(String::from_utf8(body).unwrap().contains(password));
    }
}
