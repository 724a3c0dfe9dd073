//! The query of a GET. Source: Connect protocol, "Unary-Get-Request".

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use tonic::Code;

use crate::error::Error;

/// The alphabet of URLs; padding is optional.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A request message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) is_json: bool,
    pub(super) message: Vec<u8>,
    /// The compression of the message.
    pub(super) compression: Option<HeaderValue>,
}

/// Reads a query. Other parameters than those of Connect are allowed.
pub(super) fn read(query: &str) -> Result<Query, Error> {
    let invalid = |problem: &str| Error::RequestNotReceived {
        code: Code::InvalidArgument,
        problem: problem.to_owned(),
    };
    let all: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let get = |wanted: &str| {
        let found = all.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| &**value)
    };
    const OWN: [&str; 5] = ["connect", "encoding", "message", "base64", "compression"];
    let is_repeated = |name: &&str| all.iter().filter(|(other, _)| other == name).count() > 1;
    if let Some(name) = OWN.iter().find(|name| is_repeated(name)) {
        return Err(invalid(&format!("the parameter `{name}` is there twice")));
    }
    if get("connect").is_some_and(|version| version != "v1") {
        return Err(invalid("the parameter `connect` is not v1"));
    }
    let is_json = match get("encoding") {
        Some("json") => true,
        Some("proto") => false,
        _ => {
            return Err(invalid(
                "the parameter `encoding` is neither json nor proto",
            ));
        }
    };
    let text = get("message").ok_or_else(|| invalid("the parameter `message` is missing"))?;
    let message = match get("base64") {
        Some("1") => (BASE64.decode(text))
            .map_err(|_| invalid("the parameter `message` is not base64 for URLs"))?,
        _ => text.as_bytes().to_vec(),
    };
    let compression = get("compression").filter(|name| !name.is_empty());
    Ok(Query {
        is_json,
        message,
        compression: compression.and_then(|name| HeaderValue::from_str(name).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_text_or_base64() {
        for (query, want) in [
            (
                "message=%7B%22a%22%3A1%7D&encoding=json",
                Some((true, &b"{\"a\":1}"[..], None)),
            ),
            (
                "connect=v1&base64=1&encoding=proto&message=-_8",
                Some((false, &[0xfb, 0xff], None)),
            ),
            (
                "base64=1&encoding=proto&message=-_8%3D&compression=gzip&x=y",
                Some((false, &[0xfb, 0xff], Some("gzip"))),
            ),
            ("encoding=proto&message=", Some((false, b"", None))),
            (
                "encoding=json&message=%7B%7D&base64=2",
                Some((true, b"{}", None)),
            ),
            ("encoding=json&encoding=proto&message=", None),
            ("encoding=json&message=%7B%7D&message=%7B%7D", None),
            (
                "encoding=json&message=%7B%7D&x=1&x=2",
                Some((true, b"{}", None)),
            ),
            ("encoding=json", None),
            ("encoding=xml&message=a", None),
            ("message=a", None),
            ("encoding=json&message=%7B%7D&connect=v2", None),
            ("encoding=proto&base64=1&message=%2B%2F", None),
        ] {
            let got = read(query);
            let want = want.map(|(is_json, message, compression)| Query {
                is_json,
                message: message.to_vec(),
                compression: compression.map(HeaderValue::from_static),
            });
            match got {
                Ok(got) => assert_eq!(Some(got), want, "{query}"),
                Err(error) => {
                    assert_eq!(error.code(), Code::InvalidArgument);
                    assert_eq!(want, None, "{query}: {error}");
                }
            }
        }
    }
}
