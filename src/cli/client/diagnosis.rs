//! Why a gateway cannot be reached, and what to do about it, in one line.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;

/// Maximum time that a port may take to respond to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first bytes of an HTTP/2 client: the preface, and SETTINGS without settings.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// TLS records of these types begin with this byte: alert and handshake.
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

/// Describes why no connection to the gateway at `uri` was made.
pub(super) async fn of_connection(
    uri: &Uri,
    has_ca: bool,
    error: tonic::transport::Error,
) -> String {
    match permanent(uri, has_ca, &error, true).await {
        Some(problem) => problem,
        None => format!(
            "cannot reach the gateway at {uri}: {}; start it, or name another with --gateway URL",
            last_cause(&error)
        ),
    }
}

/// Describes a problem that another attempt would have, too: TLS fails, or the port does not
/// serve gRPC. For the latter it `probes`: connects once more, to see what listens there.
pub(super) fn permanent<'u>(
    uri: &'u Uri,
    has_ca: bool,
    error: &(dyn Error + 'static),
    probes: bool,
) -> impl Future<Output = Option<String>> + Send + use<'u> {
    let authority = uri.authority().map(ToString::to_string);
    let authority = authority.unwrap_or_default();
    let tls = tls_error(error).map(|tls| tls_problem(tls, has_ca, &authority));
    async move {
        let problem = match tls {
            Some(problem) => problem,
            None if probes && uri.scheme_str() == Some("http") => {
                let probed = tokio::time::timeout(PROBE_TIMEOUT, probe(uri)).await;
                probed.ok().flatten()?
            }
            None => return None,
        };
        Some(format!("{uri}: {problem}"))
    }
}

/// Returns the TLS error among the causes of an error.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Returns the text of the innermost cause, which is usually the most specific.
pub(in crate::cli) fn last_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
        // The source of an I/O error is that of the error inside it.
        match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), |error| cause(*error))
}

fn tls_problem(error: &rustls::Error, has_ca: bool, authority: &str) -> String {
    match error {
        // A bad signature: the CA is another one of the same name.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => match has_ca {
            true => "the gateway's certificate is not signed by the CA of --ca".to_owned(),
            false => "no CA that this system trusts has signed the gateway's certificate; \
                      give its CA with --ca FILE"
                .to_owned(),
        },
        rustls::Error::InvalidCertificate(_) => {
            format!("the gateway's certificate is not valid: {error}")
        }
        rustls::Error::InvalidMessage(_) => {
            format!("this port does not serve TLS; try --gateway http://{authority}")
        }
        rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRequired
            | rustls::AlertDescription::HandshakeFailure
            | rustls::AlertDescription::BadCertificate
            | rustls::AlertDescription::UnknownCA,
        ) => format!("{error}; does the gateway require a client certificate (--cert and --key)?"),
        _ => format!("TLS fails: {error}"),
    }
}

/// Connects as an HTTP/2 client, and returns what is wrong with the response. None if
/// nothing can be said.
async fn probe(uri: &Uri) -> Option<String> {
    let start = response(uri, HTTP2_PREFACE, 5).await?;
    // A server of HTTP/1.1 can close the connection without a response.
    let problem = problem_of(&start, uri)?;
    if !start.is_empty() && !start.starts_with(b"HTTP/") {
        return Some(problem);
    }
    let request = format!(
        "GET /livez HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        uri.authority()?
    );
    let start = response(uri, request.as_bytes(), 12).await;
    let http1 = start.and_then(|start| http1_problem(&start));
    Some(http1.unwrap_or(problem))
}

/// Sends these bytes, and returns the first bytes of the response, at most so many.
async fn response(uri: &Uri, request: &[u8], count: u64) -> Option<Vec<u8>> {
    let host = uri.host()?.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(80);
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(request).await.ok()?;
    let mut start = Vec::new();
    // The bytes before an error say enough.
    let _ = stream.take(count).read_to_end(&mut start).await;
    Some(start)
}

/// Returns what is wrong with a port that responds to `GET /livez` over HTTP/1.1 with these
/// bytes. None if it does not speak HTTP/1.1.
fn http1_problem(start: &[u8]) -> Option<String> {
    let status = start.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    Some(match status {
        b"200" => "this is the port of an admin listener, with /livez and /metrics: give that of \
                   `listen.grpc`"
            .to_owned(),
        _ => "this port serves HTTP/1.1, and gRPC needs HTTP/2; is it that of the gateway?"
            .to_owned(),
    })
}

/// Returns what is wrong with a port whose response begins with these bytes. None for HTTP/2.
fn problem_of(start: &[u8], uri: &Uri) -> Option<String> {
    let authority = uri.authority()?;
    match start {
        [record, 3, ..] if TLS_RECORDS.contains(record) => Some(format!(
            "this port serves TLS; try --gateway https://{authority}"
        )),
        [] => Some(format!(
            "this port closes the connection at once; if it serves TLS, \
             try --gateway https://{authority}"
        )),
        // The type of the first frame has to be SETTINGS.
        [_, _, _, 4, ..] => None,
        _ if start.starts_with(b"HTTP/") => Some(
            "this port serves HTTP/1.1, and gRPC needs HTTP/2; is it that of the gateway?"
                .to_owned(),
        ),
        _ => Some("this port does not serve gRPC; is it that of the gateway?".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_show_the_protocol() {
        let uri = Uri::from_static("http://gw.example:50051");
        for (start, want) in [
            (
                &b"\x15\x03\x03\x00\x02"[..],
                Some("try --gateway https://gw.example:50051"),
            ),
            (b"\x16\x03\x01\x00\x02", Some("this port serves TLS")),
            (b"", Some("closes the connection at once")),
            (b"HTTP/", Some("serves HTTP/1.1")),
            (b"SSH-2", Some("does not serve gRPC")),
            (b"\x00\x00\x12\x04\x00", None),
        ] {
            let got = problem_of(start, &uri);
            let is_as_wanted = match (&got, want) {
                (Some(got), Some(want)) => got.contains(want),
                (got, want) => got.is_none() && want.is_none(),
            };
            assert!(is_as_wanted, "{start:?}: {got:?}");
        }
    }

    #[test]
    fn admin_listener_is_known_by_its_health() {
        for (start, want) in [
            (
                &b"HTTP/1.1 200"[..],
                Some("this is the port of an admin listener"),
            ),
            (
                b"HTTP/1.0 200",
                Some("this is the port of an admin listener"),
            ),
            (b"HTTP/1.1 404", Some("serves HTTP/1.1")),
            (b"HTTP/1.1", None),
            (b"", None),
            (b"\x15\x03\x03\x00\x02", None),
        ] {
            let got = http1_problem(start);
            assert_eq!(got.is_some(), want.is_some(), "{start:?}");
            let is_as_wanted = got.is_none_or(|got| got.contains(want.unwrap_or_default()));
            assert!(is_as_wanted, "{start:?}");
        }
    }

    #[test]
    fn causes_inside_io_errors_are_found() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let inner = io::Error::new(io::ErrorKind::InvalidData, tls);
        let outer = io::Error::other(inner);
        assert!(tls_error(&outer).is_some());
        assert_eq!(last_cause(&outer), tls_error(&outer).unwrap().to_string());
    }
}
