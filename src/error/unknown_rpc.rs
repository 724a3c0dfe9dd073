//! Explains the path of an rpc that does not exist.

use std::collections::BTreeSet;

use super::cut;
use crate::spelling::nearest;

/// The longest part of a client's path that an error repeats, in bytes.
const MAX_QUOTED_BYTES: usize = 120;

/// Explains a path that is none of the known rpcs, which are given as `package.Service/Method`,
/// with the most similar rpc or service. `server` has them, and `hint` says where they are
/// listed.
pub(crate) fn unknown_rpc<'k>(
    (server, hint): (&str, &str),
    path: &str,
    known: impl Iterator<Item = &'k str>,
) -> String {
    let quoted = |text: &str| cut(text, MAX_QUOTED_BYTES);
    let parts = path.strip_prefix('/').and_then(|p| p.split_once('/'));
    let Some((service, method)) = parts.filter(|(service, _)| !service.is_empty()) else {
        return format!(
            "{} is not the path of an rpc: /package.Service/Method",
            quoted(path)
        );
    };
    let all: BTreeSet<(&str, &str)> = known.filter_map(|name| name.split_once('/')).collect();
    let of_service = all.iter().filter(|(known, _)| *known == service);
    let methods: Vec<&str> = of_service.map(|(_, method)| *method).collect();
    if !methods.is_empty() {
        let near = nearest(method, methods.into_iter());
        return format!("{service} has no rpc {}{near}", quoted(method));
    }
    let services: BTreeSet<&str> = all.iter().map(|(service, _)| *service).collect();
    // Without its package, or with another version of it.
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let same_name = services.iter().copied();
    let same_name = same_name.filter(|known| last(known) == last(service));
    let same_name = nearest_or_only(service, same_name.collect());
    // A misspelled name without its package.
    let similar = || {
        let names: Vec<String> = services.iter().map(|known| last(known)).collect();
        let near = nearest(&last(service), names.iter().map(|name| &**name));
        let is_near = |known: &&str| near.ends_with(&format!(" {}?", last(known)));
        let similar = services.iter().copied().filter(is_near).collect();
        nearest_or_only(service, similar).unwrap_or_default()
    };
    let near = same_name.unwrap_or_else(|| match service.contains('.') {
        true => nearest(service, services.iter().copied()),
        false => similar(),
    });
    format!("{server} does not serve {} ({hint}){near}", quoted(service))
}

/// Returns the hint for the most similar of these services, if there are any.
fn nearest_or_only(service: &str, candidates: Vec<&str>) -> Option<String> {
    let first = *candidates.first()?;
    let near = nearest(service, candidates.into_iter());
    Some(match near.is_empty() {
        true => format!(", did you mean {first}?"),
        false => near,
    })
}
