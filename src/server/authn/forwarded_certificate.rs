//! `x-forwarded-client-cert`: the client certificate that a sidecar has verified.
//! Source: Envoy, "x-forwarded-client-cert".

use http::HeaderMap;

use crate::downstream::{Identity, IdentityKind};

/// The header that the sidecar sets, which a client could set, too.
const HEADER: &str = "x-forwarded-client-cert";

/// The scheme of SPIFFE ids.
const SPIFFE: &str = "spiffe://";

/// Returns the identity of the certificate that the sidecar has verified: its SPIFFE id, else
/// its first DNS name, else its subject, else its digest.
///
/// # Errors
///
/// Returns why the header names no single client. One that has passed through more than one
/// proxy names several.
pub(super) fn identity(headers: &HeaderMap) -> Result<Identity, String> {
    let mut values = headers.get_all(HEADER).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(format!("the request has several `{HEADER}`")),
        (None, _) => return Err(format!("the sidecar has sent no `{HEADER}`")),
    };
    let name = value
        .to_str()
        .ok()
        .and_then(Element::read)
        .map(Element::name);
    let name = match name {
        Some(Ok(name)) => name,
        Some(Err(problem)) => return Err(format!("`{HEADER}` {problem}")),
        None => {
            return Err(format!(
                "`{HEADER}` is not the certificate of one proxy's client, as Envoy writes it"
            ));
        }
    };
    Identity::new(IdentityKind::Certificate, &name)
        .map_err(|problem| format!("`{HEADER}` has a name that {problem}"))
}

/// What one proxy has added.
#[derive(Debug, Default)]
struct Element {
    spiffe: Option<String>,
    has_several_ids: bool,
    dns: Option<String>,
    subject: Option<String>,
    hash: Option<String>,
}

impl Element {
    /// Reads a header with one element; none for another form.
    fn read(text: &str) -> Option<Self> {
        let mut element = Self::default();
        let mut rest = text;
        loop {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = value(after)?;
            element.add(key.trim(), value)?;
            match after.strip_prefix(';') {
                Some(next) => rest = next,
                // A comma begins the element of another proxy.
                None if after.is_empty() => return Some(element),
                None => return None,
            }
        }
    }

    /// Adds a pair. Source: Envoy, "x-forwarded-client-cert": the keys are case-insensitive.
    fn add(&mut self, key: &str, value: String) -> Option<()> {
        match &*key.to_ascii_lowercase() {
            "uri" if value.starts_with(SPIFFE) => {
                self.has_several_ids |= self.spiffe.is_some();
                self.spiffe = Some(value);
            }
            "dns" => self.dns = self.dns.take().or(Some(value.to_ascii_lowercase())),
            "subject" if self.subject.is_none() => self.subject = Some(value),
            "hash" if self.hash.is_none() => self.hash = Some(value.to_ascii_lowercase()),
            "uri" | "by" | "cert" | "chain" => {}
            _ => return None,
        }
        Some(())
    }

    /// Returns the name of the client.
    fn name(self) -> Result<String, &'static str> {
        if self.has_several_ids {
            return Err("has several SPIFFE ids");
        }
        let filled = |value: Option<String>| value.filter(|value| !value.is_empty());
        let hash = filled(self.hash).map(|hash| format!("sha256:{hash}"));
        let name = filled(self.spiffe)
            .or(filled(self.dns))
            .or(filled(self.subject))
            .or(hash);
        name.ok_or("names no client: let the proxy set URI, DNS, Subject or Hash")
    }
}

/// Reads a value, and returns what follows it. One with a separator is in quotes, in which `\"`
/// is a quote.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (!value.contains(['"', '='])).then(|| (value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' if quoted[at + 1..].starts_with('"') => {
                chars.next();
                value.push('"');
            }
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let name = HeaderName::from_static(HEADER);
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn one_element_names_one_client() {
        const BY: &str = "By=spiffe://example.org/gateway;Hash=ABCDEF12";
        for (value, want) in [
            (
                format!("{BY};Subject=\"CN=shop,O=Example\";URI=spiffe://example.org/shop"),
                "spiffe://example.org/shop",
            ),
            (
                format!("{BY};URI=https://example.org;DNS=Shop.example;DNS=b.example"),
                "shop.example",
            ),
            (
                format!("{BY};Subject=\"/C=US/CN=a \\\"b\\\"; c, d=e\";URI="),
                "/C=US/CN=a \"b\"; c, d=e",
            ),
            (format!("{BY};Cert=\"-----BEGIN%20\""), "sha256:abcdef12"),
            ("uri=spiffe://a/b".to_owned(), "spiffe://a/b"),
        ] {
            let identity = identity(&headers(&[&value])).unwrap();
            assert_eq!(identity.as_str(), format!("certificate:{want}"), "{value}");
        }
    }

    #[test]
    fn what_more_than_one_proxy_may_have_written_is_rejected() {
        let id = "URI=spiffe://a/b";
        for (values, want) in [
            (vec![], "no `x-forwarded"),
            (vec![id, id], "several `x-forwarded"),
            (
                vec!["URI=spiffe://a/b,URI=spiffe://a/c"],
                "one proxy's client",
            ),
            (vec!["URI=spiffe://a/b, By=x"], "one proxy's client"),
            (
                vec!["URI=spiffe://a/b;URI=spiffe://a/c"],
                "several SPIFFE ids",
            ),
            (
                vec!["Subject=\"CN=a\";Subject=\"CN=b\""],
                "one proxy's client",
            ),
            (vec!["Subject=\"CN=a"], "one proxy's client"),
            (vec!["Subject=\"CN=a\"x"], "one proxy's client"),
            (vec!["URI=spiffe://a/b;"], "one proxy's client"),
            (vec!["URI=spiffe://a/\"b\""], "one proxy's client"),
            (vec!["spiffe://a/b"], "one proxy's client"),
            (vec!["Name=a"], "one proxy's client"),
            (vec![""], "one proxy's client"),
            (vec!["By=spiffe://a/b"], "names no client"),
            (vec!["URI="], "names no client"),
        ] {
            let problem = identity(&headers(&values)).unwrap_err();
            assert!(problem.contains(want), "{values:?}: {problem}");
        }
    }
}
