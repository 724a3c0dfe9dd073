//! Where an upstream is, and the whole address of a call.

use percent_encoding::utf8_percent_encode;
use url::Url;

use crate::error::Error;
use drawbridge_transcoder::call::RESERVED;

/// What stands for the project id in `Family::endpoint_suffixes`.
const PROJECT: &str = "{project_id}";

/// The longest address of a call, in bytes. The client fails on one over 64 KiB as
/// if the upstream could not be reached, and few servers take one of 32.
const MAX_LENGTH: usize = 32 << 10;

/// An endpoint, ready for the paths of calls.
#[derive(Debug)]
pub(super) struct Address {
    /// The endpoint; a call's address is made of it, so that the host is parsed
    /// but once.
    endpoint: Url,
    /// What comes before the paths of calls: the endpoint's path without what
    /// they begin with, and no slash at its end.
    before: String,
    /// The project id that the endpoint ended in, percent-encoded.
    project_id: Option<String>,
}

impl Address {
    /// Cuts off the first of `suffixes` that the endpoint ends in, and slashes.
    /// Refuses what is more than scheme, host, port and path.
    pub(super) fn of(endpoint: &Url, suffixes: &[&str]) -> Result<Self, String> {
        let problem = if !matches!(endpoint.scheme(), "http" | "https") {
            Some("must begin with http:// or https://")
        } else if !endpoint.username().is_empty() || endpoint.password().is_some() {
            Some("must not hold a user or password: set them under `auth`")
        } else if endpoint.query().is_some() || endpoint.fragment().is_some() {
            Some("must end with its path, without `?` and `#`")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        let path = endpoint.path().trim_end_matches('/');
        let (path, project_id) = suffixes
            .iter()
            .find_map(|suffix| cut(path, suffix))
            .unwrap_or((path, None));
        Ok(Self {
            before: path.trim_end_matches('/').to_owned(),
            project_id: project_id.map(str::to_owned),
            endpoint: endpoint.clone(),
        })
    }

    /// The project id that the endpoint ended in, percent-encoded.
    pub(super) fn project_id(&self) -> Option<&str> {
        self.project_id.as_deref()
    }

    /// The address of `path` below the endpoint, both percent-encoded, exactly as
    /// it will be sent. A path that would be sent otherwise is refused: `..` would
    /// lead to something else than the contract says.
    pub(super) fn url(&self, path: &str, query: &str) -> Result<Url, Error> {
        let mut url = self.endpoint.clone();
        if self.before.is_empty() {
            url.set_path(path);
        } else {
            url.set_path(&[&self.before, path].concat());
        }
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let refused = |problem| Error::Binding {
            field: "path".into(),
            problem,
        };
        if url.as_str().len() > MAX_LENGTH {
            return Err(refused(format!(
                "the call's address is longer than {MAX_LENGTH} bytes: a value in path or query is too long"
            )));
        }
        let exact = url.path().strip_prefix(&*self.before) == Some(path)
            && url.query().unwrap_or_default() == query;
        exact.then_some(url).ok_or_else(|| {
            refused(format!(
                "{path:?} cannot be sent as it is: it has a segment `.` or `..`, or a character that needs percent-encoding"
            ))
        })
    }
}

/// `path` without `suffix`, and the segment that stood for the project id.
fn cut<'a>(path: &'a str, suffix: &str) -> Option<(&'a str, Option<&'a str>)> {
    let mut rest = path;
    let mut project_id = None;
    for want in suffix.trim_start_matches('/').rsplit('/') {
        let (before, segment) = rest.rsplit_once('/')?;
        if want == PROJECT && !segment.is_empty() {
            project_id = Some(segment);
        } else if want != segment {
            return None;
        }
        rest = before;
    }
    Some((rest, project_id))
}

/// A project id as a path segment; None when it cannot be one.
pub(super) fn segment(project_id: &str) -> Option<String> {
    let fit = !matches!(project_id, "" | "." | "..");
    fit.then(|| utf8_percent_encode(project_id, RESERVED).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAT: &[&str] = &["/v1/{project_id}", "/v1"];

    #[test]
    fn endpoints() {
        for (endpoint, suffixes, base, project_id) in [
            ("http://h:8004/v1/abc", HEAT, "http://h:8004", Some("abc")),
            ("http://h:8004/v1/abc/", HEAT, "http://h:8004", Some("abc")),
            ("http://h:8004/v1/", HEAT, "http://h:8004", None),
            ("http://h:8004", HEAT, "http://h:8004", None),
            ("http://h:8004/", HEAT, "http://h:8004", None),
            (
                "https://h/heat-api/v1/a%20b",
                HEAT,
                "https://h/heat-api",
                Some("a%20b"),
            ),
            ("https://h/heat-api", HEAT, "https://h/heat-api", None),
            ("https://h/v2/abc", HEAT, "https://h/v2/abc", None),
            ("https://h/v1/abc/d", HEAT, "https://h/v1/abc/d", None),
            ("https://h/dev1", HEAT, "https://h/dev1", None),
            ("https://h/a/b//", &[], "https://h/a/b", None),
            ("https://[::1]:1/v1/x", HEAT, "https://[::1]:1", Some("x")),
        ] {
            let address = Address::of(&endpoint.parse().unwrap(), suffixes).unwrap();
            assert_eq!(address.project_id(), project_id, "{endpoint}");
            let url = address.url("/v1/p/stacks", "a=b").unwrap();
            assert_eq!(url.as_str(), format!("{base}/v1/p/stacks?a=b"));
            assert_eq!(address.url("/x", "").unwrap().as_str(), format!("{base}/x"));
        }
    }

    #[test]
    fn endpoints_refused() {
        for (endpoint, says) in [
            ("ftp://h/", "http://"),
            ("http://user@h/", "user"),
            ("http://:s3cret@h/", "password"),
            ("http://h/?a", "`?`"),
            ("http://h/#a", "`#`"),
        ] {
            let problem = Address::of(&endpoint.parse().unwrap(), &[]).unwrap_err();
            assert!(
                problem.contains(says) && !problem.contains("s3cret"),
                "{problem}"
            );
        }
    }

    #[test]
    fn paths_are_sent_as_they_are_or_not_at_all() {
        let address = Address::of(&"http://h/base".parse().unwrap(), &[]).unwrap();
        for path in [
            "/v1/a%2Fb/~x*(1):@,;=+$&!/%E2%82%AC%20../...",
            "/v1//stacks",
            "/a%252E%252E/%25",
        ] {
            assert_eq!(
                address.url(path, "").unwrap().path(),
                format!("/base{path}")
            );
        }
        for path in [
            "/v1/../admin",
            "/v1/%2e%2E/admin",
            "/v1/.",
            "/v1/a b",
            "/v1/€",
            "/v1\\x",
            "/v1?x",
            "/v1#x",
            "/v1/\t",
        ] {
            let refused = address.url(path, "");
            assert!(
                matches!(refused, Err(Error::Binding { .. })),
                "{path}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_long_address_is_the_callers_fault() {
        let address = Address::of(&"http://h".parse().unwrap(), &[]).unwrap();
        let long = "a".repeat(MAX_LENGTH);
        for (path, query) in [(format!("/{long}"), ""), ("/x".into(), &*long)] {
            let refused = address.url(&path, query);
            let Err(Error::Binding { problem, .. }) = refused else {
                panic!("{refused:?}");
            };
            assert!(
                problem.contains("too long") && problem.len() < 200,
                "{problem}"
            );
        }
    }

    #[test]
    fn project_ids_as_segments() {
        for (id, want) in [
            ("1234abcd", Some("1234abcd")),
            ("a/b c", Some("a%2Fb%20c")),
            ("a.-_~", Some("a.-_~")),
            ("", None),
            (".", None),
            ("..", None),
        ] {
            assert_eq!(segment(id).as_deref(), want, "{id}");
        }
    }
}
