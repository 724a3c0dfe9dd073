//! Response metadata: what the upstream's headers and the decoder add to a response.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tonic::body::Body;

use drawbridge_transcoder::json::Notes;

/// Set by the sandbox: no real upstream was called.
pub const SANDBOX: HeaderName = HeaderName::from_static("drawbridge-sandbox");

/// Paths of integers that are rounded in the message.
pub const INEXACT: HeaderName = HeaderName::from_static("drawbridge-inexact");

/// The longest header of an upstream that is forwarded, in bytes.
const MAX_FORWARDED_BYTES: usize = 1 << 10;

/// The longest value of [`INEXACT`], in bytes: clients bound the metadata that they accept.
const MAX_INEXACT_BYTES: usize = 1_000;

/// What is escaped in [`INEXACT`], together with all characters outside ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b',').add(b'%');

/// Makes the response with this body.
pub fn grpc_response(body: Body, is_compressed: bool) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if is_compressed {
        let name = HeaderName::from_static("grpc-encoding");
        headers.insert(name, HeaderValue::from_static("gzip"));
    }
    response
}

/// Copies these headers of the upstream's response, except values that some gRPC clients
/// reject.
pub fn forward(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        let fits =
            |value: &&HeaderValue| value.len() <= MAX_FORWARDED_BYTES && value.to_str().is_ok();
        // A copy, since the value of the upstream keeps the memory of its complete head.
        if let Some(value) = from.get(name).filter(fits)
            && let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
        {
            to.insert(name.clone(), value);
        }
    }
}

/// Adds [`INEXACT`], if any integer is rounded: the paths, percent-encoded and separated
/// by commas. `...` replaces those that do not fit.
pub fn add_inexact(notes: &Notes, to: &mut HeaderMap) {
    if let Some(paths) = inexact(notes) {
        to.insert(INEXACT, paths);
    }
}

fn inexact(notes: &Notes) -> Option<HeaderValue> {
    let mut text = String::new();
    for path in &notes.inexact {
        let path = utf8_percent_encode(path, ESCAPED).to_string();
        let comma = if text.is_empty() { "" } else { "," };
        if text.len() + path.len() > MAX_INEXACT_BYTES {
            text.extend([comma, "..."]);
            break;
        }
        text.extend([comma, &*path]);
    }
    if text.is_empty() {
        return None;
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_inexact_numbers_are_escaped_and_bounded() {
        let long = "x".repeat(600);
        for (paths, want) in [
            (&[][..], None),
            (&["a[0].b", "c"], Some("a[0].b,c".to_owned())),
            (
                &["größe 1,5%\u{1}"],
                Some("gr%C3%B6%C3%9Fe 1%2C5%25%01".to_owned()),
            ),
            (&[&*long, &*long, "c"], Some(format!("{long},..."))),
            (&[&*long.repeat(2)], Some("...".to_owned())),
        ] {
            let notes = Notes {
                inexact: paths.iter().map(|path| path.to_string()).collect(),
            };
            let value = inexact(&notes);
            let text = value.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(text, want.as_deref());
        }
    }
}
