//! Redirects: one is followed, to the canonical path of a resource below the configured
//! endpoint. The host of `Location` is ignored.

use http::StatusCode;
use http::header::LOCATION;

use drawbridge_transcoder::call::Reply;

/// Path and query below the endpoint, both percent-encoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RedirectTarget {
    pub(super) path: String,
    pub(super) query: String,
}

/// Returns where the reply to a call of `path` and `query` redirects to. Of `Location`,
/// only the path from the segment `anchor` on is used: a server behind proxies does not
/// know its public scheme, host and path prefix.
pub(super) fn target(
    reply: &Reply,
    anchor: &str,
    path: &str,
    query: &str,
) -> Option<RedirectTarget> {
    // Not 303, which asks for a GET of another resource.
    if !matches!(
        reply.status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    ) {
        return None;
    }
    let location = reply.headers.get(LOCATION)?.to_str().ok()?;
    let location = location.split('#').next()?;
    let (location, location_query) = match location.split_once('?') {
        Some((location, query)) => (location, Some(query)),
        None => (location, None),
    };
    let location = match location.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => location,
    };
    Some(RedirectTarget {
        path: [before(path, anchor)?, from(location, anchor)?].concat(),
        // Heat repeats the call's query in `Location`; other servers may not.
        // Source: docs/apis/heat.md, "Redirects and FindStack".
        query: location_query.unwrap_or(query).to_owned(),
    })
}

fn before<'a>(path: &'a str, anchor: &str) -> Option<&'a str> {
    Some(&path[..find(path, anchor)?])
}

fn from<'a>(path: &'a str, anchor: &str) -> Option<&'a str> {
    Some(&path[find(path, anchor)?..])
}

/// Returns the position of the first path segment that equals `anchor`, with its slash.
fn find(path: &str, anchor: &str) -> Option<usize> {
    path.match_indices('/').map(|(at, _)| at).find(|at| {
        path[at + 1..]
            .strip_prefix(anchor)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn only_path_from_the_anchor_and_query_are_followed() {
        let path = "/v1/p1/stacks/web";
        for (status, location, want) in [
            (
                302,
                "http://h/v1/p1/stacks/web/17",
                Some(("/v1/p1/stacks/web/17", "q=1")),
            ),
            (
                302,
                "http://h/v1/p1/stacks/web/17?q=1",
                Some(("/v1/p1/stacks/web/17", "q=1")),
            ),
            (
                302,
                "http://h/v1/p1/stacks/web/17?",
                Some(("/v1/p1/stacks/web/17", "")),
            ),
            (
                307,
                "http://evil:8004/x/stacks/a%2Fb/1#f",
                Some(("/v1/p1/stacks/a%2Fb/1", "q=1")),
            ),
            (
                301,
                "/v1/p1/stacks/stacks/17",
                Some(("/v1/p1/stacks/stacks/17", "q=1")),
            ),
            (308, "//evil/stacks/17", Some(("/v1/p1/stacks/17", "q=1"))),
            (302, "http://h/v1/p1/my-stacks/stackss/17", None),
            (302, "http://stacks", None),
            (302, "http://h?to=http://h/stacks/1", None),
            (302, "", None),
            (303, "http://h/v1/p1/stacks/web/17", None),
            (300, "http://h/v1/p1/stacks/web/17", None),
            (201, "http://h/v1/p1/stacks/web/17", None),
        ] {
            let reply = Reply {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]),
                body: Bytes::new(),
            };
            let want = want.map(|(path, query)| RedirectTarget {
                path: path.into(),
                query: query.into(),
            });
            assert_eq!(
                target(&reply, "stacks", path, "q=1"),
                want,
                "{status} {location}"
            );
            assert_eq!(target(&reply, "stacks", "/v1/p1/events", ""), None);
        }
    }
}
