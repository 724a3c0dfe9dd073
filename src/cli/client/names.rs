//! Finds an rpc, a service or a type by a short name, and similar ones for a misspelled name.

use prost_reflect::MethodDescriptor;

use super::failure::Failure;
use super::reflection::Api;
use super::text::sanitize;
use crate::spelling::distance;

/// How many similar names are suggested.
const MAX_SUGGESTIONS: usize = 3;
/// How many names of an ambiguous one are printed.
const MAX_AMBIGUOUS: usize = 8;

/// The result of a lookup by name.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Found<'n> {
    /// Exactly one.
    One(usize),
    /// Several.
    Several(Vec<&'n str>),
    /// None, but these are similar.
    None(Vec<&'n str>),
}

/// Finds a name among full names such as `acme.v1.Orders/GetOrder`. Leading segments can be
/// left out, and `.` and `/` are the same.
pub(in crate::cli) fn find<'n>(name: &str, known: &[&'n str]) -> Found<'n> {
    let wanted = segments(name);
    let matches = |candidate: &str| segments(candidate).ends_with(&wanted);
    let found: Vec<usize> = (0..known.len())
        .filter(|index| !wanted.is_empty() && matches(known[*index]))
        .collect();
    // A full name is not ambiguous, even if it ends another one.
    let full = found
        .iter()
        .find(|index| segments(known[**index]) == wanted);
    match (full, &found[..]) {
        (Some(index), _) | (None, [index]) => Found::One(*index),
        (None, []) => Found::None(similar(name, known)),
        (None, several) => Found::Several(several.iter().map(|index| known[*index]).collect()),
    }
}

fn segments(name: &str) -> Vec<&str> {
    let segments = name.split(['.', '/']);
    segments.filter(|segment| !segment.is_empty()).collect()
}

/// Returns the names that are most similar, at first by spelling, then by common words.
pub(in crate::cli) fn similar<'n>(name: &str, known: &[&'n str]) -> Vec<&'n str> {
    let wanted = segments(name);
    let Some((last, parents)) = wanted.split_last() else {
        return Vec::new();
    };
    let mut ranked: Vec<(usize, &str)> = known
        .iter()
        .filter_map(|candidate| {
            let candidate_segments = segments(candidate);
            let (own, own_parents) = candidate_segments.split_last()?;
            let rank = word_rank(last, own)?;
            // Of rpcs with the same name that of the service that was meant.
            let parent_rank = match (parents.last(), own_parents.last()) {
                (Some(parent), Some(own)) => distance(&lower(parent), &lower(own)).min(50),
                _ => 0,
            };
            Some((rank * 100 + parent_rank, *candidate))
        })
        .collect();
    ranked.sort();
    let Some(best) = ranked.first().map(|(rank, _)| rank / 100) else {
        return Vec::new();
    };
    // A misspelled name has one correction; words in common are a weaker sign.
    let is_near = |rank: usize| rank / 100 <= best + 1;
    let near = ranked.into_iter().filter(|(rank, _)| is_near(*rank));
    near.take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
}

fn lower(word: &str) -> String {
    word.to_ascii_lowercase()
}

/// Returns how far a word is from a wanted one; none if they are unlike. 0 is equal but for case.
fn word_rank(wanted: &str, word: &str) -> Option<usize> {
    let (a, b) = (lower(wanted), lower(word));
    let edits = distance(&a, &b);
    if edits <= 1 + a.len() / 5 {
        return Some(edits);
    }
    let (wanted, known) = (words(wanted), words(word));
    let has = |part: &String| known.iter().any(|word| word.starts_with(&**part));
    let is_part = !wanted.is_empty() && wanted.iter().all(has);
    is_part.then_some(20 + known.len())
}

/// Splits `GetStackTemplate` and `stack_name` into lower-case words.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut begins = true;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            begins = true;
            continue;
        }
        if begins || c.is_uppercase() {
            words.push(String::new());
        }
        begins = false;
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words
}

/// Returns a name without those of its leading segments that it does not need: at least the
/// service and the rpc, or the type.
pub(in crate::cli) fn shortened<'n>(name: &'n str, known: &[&str]) -> &'n str {
    let start = name.find('/').unwrap_or(name.len());
    let dots = name[..start].rmatch_indices('.').map(|(at, _)| at + 1);
    for at in dots {
        let short = &name[at..];
        let found = find(short, known);
        if matches!(found, Found::One(index) if known[index] == name) {
            return short;
        }
    }
    name
}

/// Returns `; did you mean A or B?`, or nothing without a name.
pub(in crate::cli) fn did_you_mean(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => format!("; did you mean {name}?"),
        [names @ .., last] => format!("; did you mean {} or {last}?", names.join(", ")),
    }
}

/// Returns the full name of an rpc, `package.Service/Method`.
pub(in crate::cli) fn full_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Returns the name of an rpc without its package.
pub(in crate::cli) fn short_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

/// Describes a name that several have.
pub(in crate::cli) fn ambiguous(name: &str, several: &[&str]) -> String {
    let mut text = format!("{} is ambiguous: ", sanitize(name));
    let shown = several.len().min(MAX_AMBIGUOUS);
    text += &several[..shown].join(", ");
    if several.len() > shown {
        text += &format!(" and {} more", several.len() - shown);
    }
    text
}

/// Checks that a name is not empty, or only separators.
pub(in crate::cli) fn check(name: &str) -> Result<(), Failure> {
    match segments(name.trim()).is_empty() {
        false => Ok(()),
        true => Err(Failure::unknown(
            "the name is empty; `drawbridge ls` lists the services",
        )),
    }
}

/// Finds the rpc of this name.
pub(in crate::cli) fn method(api: &Api, name: &str) -> Result<MethodDescriptor, Failure> {
    let methods = api.methods();
    let names: Vec<String> = methods.iter().map(full_name).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let problem = match find(name, &known) {
        Found::One(index) => match methods.into_iter().nth(index) {
            Some(method) => return Ok(method),
            None => String::new(),
        },
        Found::Several(several) => ambiguous(name, &several),
        Found::None(similar) => {
            let similar: Vec<&str> = similar
                .into_iter()
                .map(|name| shortened(name, &known))
                .collect();
            let services: Vec<String> = api.services().map(|s| s.full_name().to_owned()).collect();
            let services: Vec<&str> = services.iter().map(String::as_str).collect();
            match find(name, &services) {
                Found::One(index) => format!(
                    "{0} is a service; `drawbridge ls {0}` lists its rpcs",
                    services[index]
                ),
                _ => {
                    let hint = did_you_mean(&similar);
                    let name = sanitize(name);
                    match hint.is_empty() {
                        true => format!("no rpc {name}; `drawbridge ls` lists the services"),
                        false => format!("no rpc {name}{hint}"),
                    }
                }
            }
        }
    };
    Err(Failure::unknown(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 8] = [
        "openstack.orchestration.v1.StackService/GetStack",
        "openstack.orchestration.v1.StackService/ListStacks",
        "openstack.orchestration.v1.StackService/GetStackTemplate",
        "openstack.orchestration.v1.StackService/WatchStack",
        "acme.v1.Orders/GetOrder",
        "acme.v2.Orders/GetOrder",
        "acme.v2.Orders/CancelOrder",
        "v2.Orders/GetOrder",
    ];

    #[test]
    fn unambiguous_names_can_be_short() {
        for (name, want) in [
            ("openstack.orchestration.v1.StackService/GetStack", Some(0)),
            ("/openstack.orchestration.v1.StackService/GetStack", Some(0)),
            ("openstack.orchestration.v1.StackService.GetStack", Some(0)),
            ("v1.StackService/GetStack", Some(0)),
            ("StackService/GetStack", Some(0)),
            ("StackService.GetStack", Some(0)),
            ("GetStack", Some(0)),
            ("CancelOrder", Some(6)),
            ("v1.Orders/GetOrder", Some(4)),
            ("Orders/GetOrder", None),
            ("GetOrder", None),
            // The full name of one is the end of another.
            ("v2.Orders/GetOrder", Some(7)),
            ("acme.v2.Orders/GetOrder", Some(5)),
            ("Service/GetStack", None),
            ("etStack", None),
            ("getstack", None),
            ("", None),
            ("/", None),
        ] {
            let found = match find(name, &KNOWN) {
                Found::One(index) => Some(index),
                _ => None,
            };
            assert_eq!(found, want, "{name}");
        }
        let several = find("Orders/GetOrder", &KNOWN);
        let want = Found::Several(vec![KNOWN[4], KNOWN[5], KNOWN[7]]);
        assert_eq!(several, want);
    }

    #[test]
    fn near_misses_are_suggested() {
        for (name, want) in [
            ("GetStak", &[KNOWN[0]][..]),
            ("StackService/GetStak", &[KNOWN[0]]),
            ("getstack", &[KNOWN[0]]),
            ("StackServce/ListStacks", &[KNOWN[1]]),
            ("ListStack", &[KNOWN[1]]),
            ("Orders/CancleOrder", &[KNOWN[6]]),
            ("Cancel", &[KNOWN[6]]),
            ("Template", &[KNOWN[2]]),
            ("acme.v2.Orders/GetOrdr", &[KNOWN[4], KNOWN[5], KNOWN[7]]),
            ("Nothing", &[]),
            ("", &[]),
        ] {
            assert_eq!(similar(name, &KNOWN), want, "{name}");
        }
    }

    #[test]
    fn names_are_shortened_as_far_as_they_stay_unambiguous() {
        for (name, want) in [
            (KNOWN[0], "StackService/GetStack"),
            (KNOWN[6], "Orders/CancelOrder"),
            (KNOWN[4], "v1.Orders/GetOrder"),
            (KNOWN[5], KNOWN[5]),
            (KNOWN[7], KNOWN[7]),
        ] {
            assert_eq!(shortened(name, &KNOWN), want);
        }
    }

    #[test]
    fn suggestions_are_a_question() {
        for (names, want) in [
            (&[][..], ""),
            (&["A"], "; did you mean A?"),
            (&["A", "B", "C"], "; did you mean A, B or C?"),
        ] {
            assert_eq!(did_you_mean(names), want);
        }
    }
}
