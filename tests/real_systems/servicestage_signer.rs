//! Compares the gateway's signer and the sandbox's verifier with Huawei's signer, which runs
//! in one Python process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use drawbridge::credentials::AkSk;
use drawbridge::credentials::aksk::Keys;
use drawbridge::http_client::HttpRequest;
use drawbridge_sandbox::signature;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::python::{python, tests};

/// Number of requests in each direction.
const CASES: usize = 2000;

/// Huawei's signer, with one line of input and output per request.
struct Theirs {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Theirs {
    fn start() -> Self {
        let requirements = "python/servicestage-requirements.txt";
        let python = python("servicestage-venv", requirements);
        let mut child = Command::new(python)
            .arg(tests("python/servicestage_signer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            asks: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn sign(&mut self, case: &Case, headers: &HeaderMap) -> Value {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            // The SDK stores header values as text and signs them as UTF-8.
            let value = String::from_utf8(value.as_bytes().to_vec()).unwrap();
            // It recognizes the content type only in this spelling.
            let name = name.as_str().replace("content-type", "Content-Type");
            (name, Value::from(value))
        };
        let ask = json!({
            "method": case.verb.as_str(),
            "host": case.host,
            "path": case.path(),
            "query": case.query,
            "headers": headers.iter().map(text).collect::<serde_json::Map<_, _>>(),
            "body": BASE64_STANDARD.encode(&case.body),
            "ak": case.access_key,
            "sk": case.secret_key,
        });
        writeln!(self.asks, "{ask}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?} for {ask}"))
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A random request.
#[derive(Debug)]
struct Case {
    verb: Method,
    host: String,
    /// Decoded; never `.` or `..`, which URLs normalize.
    segments: Vec<String>,
    /// Ends in a slash.
    is_folder: bool,
    /// Decoded, in the order of sending.
    query: Vec<(String, String)>,
    /// Encodes spaces in the query as `+`.
    plus: bool,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    access_key: String,
    secret_key: String,
    security_token: Option<String>,
    project_id: Option<String>,
    at: SystemTime,
}

/// Characters that a path segment need not escape, and others: both must sign equally.
const LOOSE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'/')
    .add(b'\\')
    .add(b'^')
    .add(b'|')
    .add(b'%');

impl Case {
    fn random(random: &mut fastrand::Rng) -> Self {
        let verbs = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ];
        let hosts = ["h.test", "h.test:8443", "127.0.0.1:80", "[::1]:9"];
        let types = [
            None,
            Some("application/json"),
            Some("application/json;charset=utf8"),
            Some("application/bson"),
            Some("text/plain"),
            Some("application/octet-stream"),
        ];
        let pairs = random.usize(..6);
        let mut query: Vec<(String, String)> = (0..pairs)
            .map(|_| (word(random, 1), word(random, 0)))
            .collect();
        // A repeated key.
        if let Some((key, _)) = query.first().cloned().filter(|_| random.bool()) {
            query.push((key, word(random, 0)));
        }
        let parts = random.usize(..5);
        let segments: Vec<String> = (0..parts)
            .map(|_| word(random, 1))
            .filter(|segment| segment != "." && segment != "..")
            .collect();
        let body = match random.u8(..4) {
            0 => Vec::new(),
            1 => (0..random.usize(..300)).map(|_| random.u8(..)).collect(),
            _ => json!({ word(random, 1): word(random, 0) })
                .to_string()
                .into_bytes(),
        };
        // Between 1970 and 2106.
        let at = UNIX_EPOCH + Duration::from_secs(u64::from(random.u32(..)));
        Self {
            verb: verbs[random.usize(..verbs.len())].clone(),
            host: hosts[random.usize(..hosts.len())].to_owned(),
            is_folder: segments.is_empty() || random.bool(),
            segments,
            query,
            plus: random.bool(),
            content_type: types[random.usize(..types.len())],
            body,
            access_key: format!("AK{}", random.u64(..)),
            secret_key: word(random, 1),
            security_token: random.bool().then(|| format!("token {}", random.u64(..))),
            project_id: random.bool().then(|| format!("{:032x}", random.u128(..))),
            at,
        }
    }

    /// Returns the target as sent.
    fn path(&self) -> String {
        let mut path: String = (self.segments.iter())
            .map(|segment| format!("/{}", utf8_percent_encode(segment, LOOSE)))
            .collect();
        if self.is_folder {
            path.push('/');
        }
        path
    }

    fn target(&self) -> String {
        let escape = |text: &str| {
            let text = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            if self.plus {
                text.replace("%20", "+")
            } else {
                text
            }
        };
        let pairs: Vec<String> = (self.query.iter())
            .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
            .collect();
        match pairs.is_empty() {
            true => self.path(),
            false => format!("{}?{}", self.path(), pairs.join("&")),
        }
    }
}

/// Returns a word of letters and of characters that must, can or must not be escaped.
fn word(random: &mut fastrand::Rng, least: usize) -> String {
    const SPICE: [char; 28] = [
        ' ', '+', '&', '=', '/', '~', '*', '-', '_', '.', '%', '?', '#', ';', ':', '@', '!', '$',
        '\'', '(', ')', ',', '[', ']', 'é', '订', '𝄞', '"',
    ];
    let length = random.usize(least..least + 8);
    (0..length)
        .map(|_| match random.bool() {
            true => random.alphanumeric(),
            false => SPICE[random.usize(..SPICE.len())],
        })
        .collect()
}

fn seed() -> u64 {
    let told = std::env::var("SIGNER_SEED").ok();
    let seed = told.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    eprintln!("SIGNER_SEED={seed}");
    seed
}

/// Both signers return the same signature for the same headers.
#[test]
fn ours_is_theirs() {
    let mut theirs = Theirs::start();
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..CASES {
        let case = Case::random(&mut random);
        let url = format!("https://{}{}", case.host, case.target());
        let mut request = HttpRequest {
            verb: case.verb.clone(),
            url: url.parse().unwrap(),
            headers: HeaderMap::from_iter(
                case.content_type
                    .map(|kind| (http::header::CONTENT_TYPE, HeaderValue::from_static(kind))),
            ),
            body: (!case.body.is_empty()).then(|| case.body.clone().into()),
            memory: Default::default(),
        };
        let keys = AkSk {
            access_key: case.access_key.clone(),
            secret_key: case.secret_key.clone().into(),
            security_token: case.security_token.clone().map(Into::into),
            project_id: case.project_id.clone(),
            domain_id: None,
            iam_endpoint: None,
            region: None,
        };
        let place = format!("SIGNER_SEED={seed}, case {number}: {case:?}");
        let keys = Keys::new(&keys).unwrap();
        keys.sign(&mut request, None, case.at).unwrap();
        assert_eq!(request.url.path(), case.path(), "sent as it is: {place}");
        let mut headers = request.headers.clone();
        let ours = headers.remove("authorization").unwrap();
        // Their signer adds it itself, in its own spelling.
        headers.remove("x-sdk-content-sha256");
        headers.insert("host", case.host.parse().unwrap());
        let signed = theirs.sign(&case, &headers);
        assert_eq!(signed["authorization"], ours.to_str().unwrap(), "{place}");
    }
}

/// Signatures of their signer verify, with arbitrary headers; changed requests do not.
#[test]
fn theirs_is_taken() {
    let mut theirs = Theirs::start();
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..CASES {
        let case = Case::random(&mut random);
        let place = format!("SIGNER_SEED={seed}, case {number}: {case:?}");
        let mut headers = random_headers(&mut random);
        let date = date(case.at);
        headers.insert("x-sdk-date", date.parse().unwrap());
        headers.insert("host", case.host.parse().unwrap());
        if let Some(kind) = case.content_type {
            headers.insert("content-type", HeaderValue::from_static(kind));
        }
        let signed = theirs.sign(&case, &headers);
        let authorization = signed["authorization"].as_str().unwrap();
        headers.insert("authorization", authorization.parse().unwrap());
        // The SDK does not sign such bodies and adds a header that says so.
        let unsigned = (case.content_type).is_some_and(|kind| !kind.contains("son"));
        if unsigned {
            headers.insert(
                "x-sdk-content-sha256",
                HeaderValue::from_static("UNSIGNED-PAYLOAD"),
            );
        }
        let secret = case.secret_key.as_str();
        let (ours, sent) = (case.target(), signed["target"].as_str().unwrap().to_owned());
        let late = Duration::from_secs(901);
        assert_eq!(
            signature::access_key(&headers),
            Some(&*case.access_key),
            "{place}"
        );
        let takes = |target: &str, headers: &HeaderMap, body: &[u8], secret: &str, at| {
            let request = signature::Request {
                method: &case.verb,
                target,
                headers,
                body,
            };
            signature::verify(request, secret, Some(at)).is_ok()
        };
        // As the SDK sends it, and with the original query.
        assert!(
            takes(&sent, &headers, &case.body, secret, case.at),
            "{place}"
        );
        assert!(
            takes(&ours, &headers, &case.body, secret, case.at),
            "{place}"
        );

        let mut other_body = case.body.clone();
        other_body.push(b'x');
        let hidden = unsigned && !case.body.is_empty();
        assert_eq!(
            takes(&sent, &headers, &other_body, secret, case.at),
            hidden,
            "body: {place}"
        );
        let other = format!("{}x", case.secret_key);
        assert!(
            !takes(&sent, &headers, &case.body, &other, case.at),
            "secret: {place}"
        );
        assert!(
            !takes(&sent, &headers, &case.body, secret, case.at + late),
            "date: {place}"
        );
        let other = format!("/x{sent}");
        assert!(
            !takes(&other, &headers, &case.body, secret, case.at),
            "path: {place}"
        );
        let joint = if sent.contains('?') { '&' } else { '?' };
        let other = format!("{sent}{joint}more=1");
        assert!(
            !takes(&other, &headers, &case.body, secret, case.at),
            "query: {place}"
        );
        // One signed header, changed or removed.
        let list = authorization.split("SignedHeaders=").nth(1).unwrap();
        for name in list.split(',').next().unwrap().split(';') {
            let mut less = headers.clone();
            let old = less.remove(name).unwrap();
            assert!(
                !takes(&sent, &less, &case.body, secret, case.at),
                "{name}: {place}"
            );
            let mut changed = old.as_bytes().to_vec();
            changed.push(b'x');
            let name: HeaderName = name.parse().unwrap();
            less.insert(name, HeaderValue::from_bytes(&changed).unwrap());
            assert!(!takes(&sent, &less, &case.body, secret, case.at), "{place}");
        }
    }
}

/// Headers with spaces around and inside the value, and with non-ASCII characters.
fn random_headers(random: &mut fastrand::Rng) -> HeaderMap {
    let names = [
        "x-project-id",
        "x-domain-id",
        "x-security-token",
        "user-agent",
        "x-a",
        "accept",
    ];
    let mut headers = HeaderMap::new();
    for name in names {
        if random.bool() {
            let pad = " ".repeat(random.usize(..3));
            let value = format!("{pad}{}{pad}", word(random, 1));
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
    }
    headers
}

/// `YYYYMMDDTHHMMSSZ`.
fn date(at: SystemTime) -> String {
    let text = prost_types::Timestamp::from(at).to_string();
    text.replace(['-', ':'], "")
}
