//! The endpoint of an upstream, and the URL of a call.

use percent_encoding::utf8_percent_encode;
use url::Url;

use crate::error::Error;
use crate::http_client;
use drawbridge_transcoder::call::RESERVED;

/// Placeholder of the project id in `Family::endpoint_suffixes`.
const PROJECT_PLACEHOLDER: &str = "{project_id}";

/// Limit of a call's URL, in bytes. The HTTP client fails on more than 64 KiB as if the
/// upstream could not be reached; few servers accept 32 KiB.
const MAX_URL_BYTES: usize = 32 << 10;

/// An endpoint, prepared for the paths of calls.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The URL, configured or from the catalog. The URL of a call is a modified copy, so that
    /// the host is parsed only once.
    url: Url,
    /// The path of the endpoint without the suffix that the paths of calls begin with, and
    /// without a trailing slash.
    path_prefix: String,
    /// The project id at the end of the URL, percent-encoded.
    project_id: Option<String>,
    /// Whether a credential in a request to it can be read on the network.
    pub(super) is_exposed: bool,
}

impl Endpoint {
    /// Removes the first of `suffixes` that the URL ends in, and trailing slashes. Rejects
    /// a URL that is more than scheme, host, port and path.
    pub(super) fn new(url: &Url, suffixes: &[&str]) -> Result<Self, String> {
        let problem = if !matches!(url.scheme(), "http" | "https") {
            Some("must begin with http:// or https://")
        } else if !url.username().is_empty() || url.password().is_some() {
            Some("must not contain a user or password: set them under `auth`")
        } else if url.query().is_some() || url.fragment().is_some() {
            Some("must end with its path, without `?` and `#`")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        let path = url.path().trim_end_matches('/');
        let (path, project_id) = suffixes
            .iter()
            .find_map(|suffix| strip_suffix(path, suffix))
            .unwrap_or((path, None));
        Ok(Self {
            path_prefix: path.trim_end_matches('/').to_owned(),
            project_id: project_id.map(str::to_owned),
            is_exposed: is_exposed(url),
            url: url.clone(),
        })
    }

    /// Returns the project id at the end of the URL, percent-encoded.
    pub(super) fn project_id(&self) -> Option<&str> {
        self.project_id.as_deref()
    }

    /// Returns the URL of `path` below the endpoint, both percent-encoded. Rejects a path
    /// that URL parsing would change: `..` would address a resource other than the
    /// contract's.
    pub(super) fn url(&self, path: &str, query: &str) -> Result<Url, Error> {
        let mut url = self.url.clone();
        if self.path_prefix.is_empty() {
            url.set_path(path);
        } else {
            url.set_path(&[&self.path_prefix, path].concat());
        }
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let invalid = |problem| Error::Binding {
            field: "path".into(),
            problem,
        };
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(invalid(format!(
                "the call's URL is longer than {MAX_URL_BYTES} bytes: a value in path or query is too long"
            )));
        }
        let exact = url.path().strip_prefix(&*self.path_prefix) == Some(path)
            && url.query().unwrap_or_default() == query;
        exact.then_some(url).ok_or_else(|| {
            invalid(format!(
                "{path:?} cannot be sent unchanged: it has a segment `.` or `..`, or a character that needs percent-encoding"
            ))
        })
    }
}

/// Returns whether a credential in a request to this URL can be read on the network.
pub(super) fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !http_client::is_loopback(url)
}

/// Returns `path` without `suffix`, and the segment at the place of the project id.
fn strip_suffix<'a>(path: &'a str, suffix: &str) -> Option<(&'a str, Option<&'a str>)> {
    let mut rest = path;
    let mut project_id = None;
    for want in suffix.trim_start_matches('/').rsplit('/') {
        let (before, segment) = rest.rsplit_once('/')?;
        if want == PROJECT_PLACEHOLDER && !segment.is_empty() {
            project_id = Some(segment);
        } else if want != segment {
            return None;
        }
        rest = before;
    }
    Some((rest, project_id))
}

/// Returns a project id as a path segment; None if it cannot be one.
pub(super) fn segment(project_id: &str) -> Option<String> {
    let valid = !matches!(project_id, "" | "." | "..");
    valid.then(|| utf8_percent_encode(project_id, RESERVED).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAT: &[&str] = &["/v1/{project_id}", "/v1"];

    #[test]
    fn suffix_and_project_id_are_removed() {
        for (text, suffixes, base, project_id) in [
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
            let endpoint = Endpoint::new(&text.parse().unwrap(), suffixes).unwrap();
            assert_eq!(endpoint.project_id(), project_id, "{text}");
            let url = endpoint.url("/v1/p/stacks", "a=b").unwrap();
            assert_eq!(url.as_str(), format!("{base}/v1/p/stacks?a=b"));
            assert_eq!(
                endpoint.url("/x", "").unwrap().as_str(),
                format!("{base}/x")
            );
        }
    }

    #[test]
    fn plaintext_to_another_host_is_exposed() {
        for (url, want) in [
            ("http://heat.test:8004/v1", true),
            ("http://10.0.0.1/", true),
            ("http://[fd00::1]/", true),
            ("http://localhost.test/", true),
            ("http://0.0.0.0/", true),
            ("https://heat.test/", false),
            ("http://127.0.0.1:8004/", false),
            ("http://127.9.9.9/", false),
            ("http://[::1]/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("http://LOCALHOST/", false),
            ("http://localhost./", false),
            ("http://a.localhost/", false),
        ] {
            assert_eq!(is_exposed(&url.parse().unwrap()), want, "{url}");
        }
    }

    #[test]
    fn urls_with_more_than_a_path_are_rejected() {
        for (text, want) in [
            ("ftp://h/", "http://"),
            ("http://user@h/", "user"),
            ("http://:s3cret@h/", "password"),
            ("http://h/?a", "`?`"),
            ("http://h/#a", "`#`"),
        ] {
            let problem = Endpoint::new(&text.parse().unwrap(), &[]).unwrap_err();
            assert!(
                problem.contains(want) && !problem.contains("s3cret"),
                "{problem}"
            );
        }
    }

    #[test]
    fn paths_are_sent_unchanged_or_rejected() {
        let endpoint = Endpoint::new(&"http://h/base".parse().unwrap(), &[]).unwrap();
        for path in [
            "/v1/a%2Fb/~x*(1):@,;=+$&!/%E2%82%AC%20../...",
            "/v1//stacks",
            "/a%252E%252E/%25",
        ] {
            assert_eq!(
                endpoint.url(path, "").unwrap().path(),
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
            let result = endpoint.url(path, "");
            assert!(
                matches!(result, Err(Error::Binding { .. })),
                "{path}: {result:?}"
            );
        }
    }

    #[test]
    fn long_url_is_an_invalid_argument() {
        let endpoint = Endpoint::new(&"http://h".parse().unwrap(), &[]).unwrap();
        let long = "a".repeat(MAX_URL_BYTES);
        for (path, query) in [(format!("/{long}"), ""), ("/x".into(), &*long)] {
            let result = endpoint.url(&path, query);
            let Err(Error::Binding { problem, .. }) = result else {
                panic!("{result:?}");
            };
            assert!(
                problem.contains("too long") && problem.len() < 200,
                "{problem}"
            );
        }
    }

    #[test]
    fn project_ids_become_path_segments() {
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
