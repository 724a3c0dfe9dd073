//! Verifies Huawei Cloud's request signature, `SDK-HMAC-SHA256`, of a request as
//! received.
//!
//! Implemented independently of the gateway's signer, so that the two check each other.
//! Source of the rules: the official Python signer (huaweicloudsdkcore,
//! `signer/signer.py`); its vectors are in `tests/fixtures/servicestage`.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use prost_types::Timestamp;
use ring::{digest, hmac};

const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// Maximum difference between the date of a request and the server's clock. Source:
/// Huaweicloud API Gateway, "AK/SK Signing and Authentication".
pub const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// A request as received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Path and query as on the wire.
    pub target: &'a str,
    /// All headers, `host` included.
    pub headers: &'a HeaderMap,
    /// Body as on the wire.
    pub body: &'a [u8],
}

/// Returns the access key that the `authorization` header names.
pub fn access_key(headers: &HeaderMap) -> Option<&str> {
    Some(parse_authorization(headers)?.access_key)
}

/// Verifies the signature with the secret key, in constant time, and the date against
/// `now` if given. Fails with the reason.
pub fn verify(
    request: Request<'_>,
    secret: &str,
    now: Option<SystemTime>,
) -> Result<(), &'static str> {
    let headers = request.headers;
    let stated = parse_authorization(headers).ok_or("authorization is not a signature")?;
    for required in ["host", "x-sdk-date"] {
        if !stated
            .signed_headers
            .split(';')
            .any(|name| name == required)
        {
            return Err("host and x-sdk-date must be signed");
        }
    }
    let canonical = canonical_request(request, stated.signed_headers)?;
    let date = headers.get("x-sdk-date").map_or(&b""[..], |d| d.as_bytes());
    if let Some(now) = now {
        let date = parse_date(date).ok_or("x-sdk-date is not YYYYMMDDTHHMMSSZ")?;
        let skew = now
            .duration_since(date)
            .unwrap_or_else(|ahead| ahead.duration());
        if skew > MAX_SKEW {
            return Err("x-sdk-date is more than 15 minutes off");
        }
    }
    let string_to_sign = [
        ALGORITHM.as_bytes(),
        date,
        hex_sha256(&canonical).as_bytes(),
    ]
    .join(&b'\n');
    let signature = decode_hex(stated.signature).ok_or("the signature is not hexadecimal")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, &string_to_sign, &signature).map_err(|_| "the signature does not match")
}

/// `SDK-HMAC-SHA256 Access=..., SignedHeaders=a;b, Signature=...`
struct Authorization<'a> {
    access_key: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

fn parse_authorization(headers: &HeaderMap) -> Option<Authorization<'_>> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let (access_key, rest) = value
        .strip_prefix(ALGORITHM)?
        .trim_start()
        .strip_prefix("Access=")?
        .split_once(',')?;
    let (signed_headers, rest) = rest
        .trim_start()
        .strip_prefix("SignedHeaders=")?
        .split_once(',')?;
    Some(Authorization {
        access_key,
        signed_headers,
        signature: rest.trim_start().strip_prefix("Signature=")?,
    })
}

/// Joins method, path, query, headers, header names and body hash with line breaks.
/// Fails if a signed header is missing.
fn canonical_request(request: Request<'_>, signed: &str) -> Result<Vec<u8>, &'static str> {
    let Request {
        method,
        target,
        headers,
        body,
    } = request;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut lines = vec![
        method.as_str().as_bytes().to_vec(),
        canonical_path(path).into_bytes(),
        canonical_query(query).into_bytes(),
    ];
    for name in signed.split(';') {
        let value = headers.get(name).ok_or("a signed header is missing")?;
        let name = name.as_bytes();
        lines.push([name, value.as_bytes().trim_ascii()].join(&b':'));
    }
    // The block of headers ends with an additional line break.
    lines.push(Vec::new());
    lines.push(signed.as_bytes().to_vec());
    lines.push(match headers.get("x-sdk-content-sha256") {
        // An empty body is always hashed, whatever the header says.
        Some(stated) if !body.is_empty() => stated.as_bytes().to_vec(),
        _ => hex_sha256(body).into_bytes(),
    });
    Ok(lines.join(&b'\n'))
}

/// Decodes the path before it is split into segments, so that `%2F` separates; adds a
/// trailing slash.
fn canonical_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    for byte in percent_decode_str(path) {
        match byte {
            b'/' => out.push('/'),
            byte => push_escaped(&mut out, byte),
        }
    }
    if !out.ends_with('/') {
        out.push('/');
    }
    out
}

/// Sorts the decoded pairs and encodes them again. A `+` is a space, as in forms.
fn canonical_query(query: &str) -> String {
    let decode =
        |text: &str| -> Vec<u8> { percent_decode_str(&text.replace('+', "%20")).collect() };
    let mut pairs: Vec<[Vec<u8>; 2]> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push([decode(name), decode(value)]);
    }
    pairs.sort_unstable();
    let mut out = String::with_capacity(query.len());
    for [name, value] in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        name.iter().for_each(|byte| push_escaped(&mut out, *byte));
        out.push('=');
        value.iter().for_each(|byte| push_escaped(&mut out, *byte));
    }
    out
}

fn push_escaped(out: &mut String, byte: u8) {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            out.push(char::from(byte));
        }
        byte => out.push_str(&format!("%{byte:02X}")),
    }
}

/// `YYYYMMDDTHHMMSSZ`, in UTC.
fn parse_date(text: &[u8]) -> Option<SystemTime> {
    if text.len() != 16 || text[8] != b'T' || text[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0_u16, |sum, digit| {
            let digit = char::from(*digit).to_digit(10)? as u16;
            Some(sum * 10 + digit)
        })
    };
    let pair = |from: usize| u8::try_from(number(from, from + 2)?).ok();
    let date = Timestamp::date_time_nanos(
        i64::from(number(0, 4)?),
        pair(4)?,
        pair(6)?,
        pair(9)?,
        pair(11)?,
        pair(13)?,
        0,
    );
    date.ok()?.try_into().ok()
}

fn hex_sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
