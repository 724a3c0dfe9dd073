//! The environment of the process, and its variables that no code reads.

use std::cell::RefCell;
use std::collections::HashSet;

use super::{Problem, overlay};
use crate::spelling::nearest;

/// The beginning of the names of the gateway's variables.
const PREFIX: &str = "DRAWBRIDGE_";

/// The variables of the gateway and of its command line, and the one by which examples of
/// clients are given its address.
const VARIABLES: [&str; 11] = [
    "DRAWBRIDGE_ADDR",
    "DRAWBRIDGE_ADMIN",
    "DRAWBRIDGE_CONFIG",
    "DRAWBRIDGE_GATEWAY",
    "DRAWBRIDGE_GATEWAY_CA",
    "DRAWBRIDGE_GATEWAY_CERT",
    "DRAWBRIDGE_GATEWAY_KEY",
    "DRAWBRIDGE_LISTEN",
    "DRAWBRIDGE_LOG",
    "DRAWBRIDGE_LOG_FORMAT",
    "DRAWBRIDGE_TOKEN",
];

/// The variables that `serve` and `check` read.
const READ: [&str; 5] = [
    "DRAWBRIDGE_CONFIG",
    "DRAWBRIDGE_LISTEN",
    "DRAWBRIDGE_ADMIN",
    "DRAWBRIDGE_LOG",
    "DRAWBRIDGE_LOG_FORMAT",
];

/// Words by which users name a variable, where its own name is too different for a
/// suggestion by spelling.
const SYNONYMS: [(&[&str], &str); 5] = [
    (
        &["PORT", "HOST", "BIND", "ADDRESS", "GRPC", "URL"],
        "DRAWBRIDGE_LISTEN",
    ),
    (
        &["METRICS", "HEALTH", "PROMETHEUS", "ADMIN"],
        "DRAWBRIDGE_ADMIN",
    ),
    (&["FORMAT", "JSON", "LOGFORMAT"], "DRAWBRIDGE_LOG_FORMAT"),
    (
        &["LEVEL", "LOGLEVEL", "LOGGING", "VERBOSE", "DEBUG", "LOGS"],
        "DRAWBRIDGE_LOG",
    ),
    (
        &["FILE", "CONF", "CFG", "TOML", "CONFIGURATION"],
        "DRAWBRIDGE_CONFIG",
    ),
];

/// The variables of the process, which records those that are read.
#[derive(Debug, Default)]
pub struct Environment {
    read: RefCell<HashSet<String>>,
}

impl Environment {
    /// Returns the value of a variable; none if it is unset or not UTF-8.
    pub fn get(&self, name: &str) -> Option<String> {
        self.read.borrow_mut().insert(name.to_owned());
        std::env::var(name).ok()
    }

    /// Returns a warning per variable that is probably meant for the gateway, and that neither
    /// the gateway nor its configuration reads.
    pub fn warnings(&self) -> Vec<Problem> {
        let read = self.read.borrow();
        let mut variables: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| {
                let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
                (text(name), text(value))
            })
            .filter(|(name, _)| !read.contains(name))
            .collect();
        variables.sort();
        unknown(variables.iter().map(|(name, value)| (&**name, &**value)))
    }
}

/// Returns a warning per unknown variable of the gateway.
fn unknown<'v>(variables: impl Iterator<Item = (&'v str, &'v str)>) -> Vec<Problem> {
    variables
        .filter(|(name, value)| {
            let is_unknown = name.starts_with(PREFIX) && !VARIABLES.contains(name);
            // Keys of the configuration are checked where they are read.
            is_unknown && !name.starts_with(overlay::PREFIX) && !is_service_link(name, value)
        })
        .map(|(name, _)| {
            let text = format!(
                "is not a variable of drawbridge and has no effect{}; there are {}, and \
                 DRAWBRIDGE__TABLE__KEY for each key of the file",
                hint(name),
                READ.join(", ")
            );
            Problem::of_variable(name, &text)
        })
        .collect()
}

/// Returns the variable that is probably meant.
fn hint(name: &str) -> String {
    let bare = name.trim_start_matches(PREFIX);
    // Without the prefix, which all have in common.
    let known = VARIABLES
        .iter()
        .map(|known| known.trim_start_matches(PREFIX));
    let near = nearest(bare, known);
    if !near.is_empty() {
        return near.replacen("mean ", &format!("mean {PREFIX}"), 1);
    }
    let words: Vec<&str> = bare.split('_').collect();
    let synonym = SYNONYMS
        .iter()
        .find(|(synonyms, _)| words.iter().any(|word| synonyms.contains(word)));
    synonym.map_or_else(String::new, |(_, variable)| {
        format!(", did you mean {variable}?")
    })
}

/// Returns whether Kubernetes sets this variable in each pod of a namespace that has a service
/// `drawbridge` or `drawbridge-…`.
/// Source: Kubernetes, "Accessing the Service", environment variables; `makeLinkVariables` in
/// pkg/kubelet/envvars/envvars.go.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = || {
        value
            .split_once("://")
            .is_some_and(|(scheme, _)| is_protocol(scheme))
    };
    let parts: Vec<&str> = name.split('_').collect();
    (1..parts.len()).any(|at| match &parts[at..] {
        ["SERVICE", "HOST"] => true,
        ["SERVICE", "PORT", ..] => true,
        ["PORT"] => is_url(),
        ["PORT", number, protocol, rest @ ..] if number.parse::<u16>().is_ok() => {
            is_protocol(protocol)
                && match rest {
                    [] => is_url(),
                    ["ADDR" | "PORT" | "PROTO"] => true,
                    _ => false,
                }
        }
        _ => false,
    })
}

/// Returns whether a service can have this protocol.
fn is_protocol(word: &str) -> bool {
    ["tcp", "udp", "sctp"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_of_kubernetes_are_ignored() {
        for (name, value, ignored) in [
            ("DRAWBRIDGE_PORT", "tcp://10.0.0.1:50051", true),
            ("DRAWBRIDGE_SERVICE_HOST", "10.0.0.1", true),
            ("DRAWBRIDGE_SERVICE_PORT", "50051", true),
            ("DRAWBRIDGE_SERVICE_PORT_GRPC", "50051", true),
            ("DRAWBRIDGE_SERVICE_PORT_GRPC_WEB", "50051", true),
            ("DRAWBRIDGE_PORT_50051_TCP", "tcp://10.0.0.1:50051", true),
            ("DRAWBRIDGE_PORT_50051_TCP_ADDR", "10.0.0.1", true),
            ("DRAWBRIDGE_PORT_50051_TCP_PORT", "50051", true),
            ("DRAWBRIDGE_PORT_50051_TCP_PROTO", "tcp", true),
            ("DRAWBRIDGE_PORT_53_UDP_PROTO", "udp", true),
            ("DRAWBRIDGE_CANARY_PORT", "tcp://[fd00::1]:50051", true),
            ("DRAWBRIDGE_LOG_SERVICE_HOST", "10.0.0.2", true),
            ("DRAWBRIDGE_EU_1_PORT_50051_TCP_ADDR", "10.0.0.2", true),
            ("DRAWBRIDGE_PORT_SERVICE_PORT", "1", true),
            ("DRAWBRIDGE_PORT", "50051", false),
            ("DRAWBRIDGE_PORT", "http://10.0.0.1", false),
            ("DRAWBRIDGE_HOST", "10.0.0.1", false),
            ("DRAWBRIDGE_PORT_GRPC", "50051", false),
            ("DRAWBRIDGE_PORT_50051_TCP_HOST", "10.0.0.1", false),
            ("DRAWBRIDGE_PORT_70000_TCP_ADDR", "10.0.0.1", false),
        ] {
            assert_eq!(is_service_link(name, value), ignored, "{name}={value}");
        }
    }

    #[test]
    fn unknown_variables_are_warnings_with_a_suggestion() {
        for (name, value, want) in [
            ("DRAWBRIDGE_LISTEN", "127.0.0.1:1", None),
            ("DRAWBRIDGE_TOKEN", "secret", None),
            ("PATH", "/bin", None),
            ("DRAWBRIDGEX", "1", None),
            ("DRAWBRIDGE_PORT", "tcp://10.0.0.1:50051", None),
            (
                "DRAWBRIDGE_LISTN",
                "1",
                Some(", did you mean DRAWBRIDGE_LISTEN?;"),
            ),
            (
                "DRAWBRIDGE_LOG_LEVEL",
                "info",
                Some(", did you mean DRAWBRIDGE_LOG?;"),
            ),
            (
                "DRAWBRIDGE_LOGFORMAT",
                "json",
                Some(", did you mean DRAWBRIDGE_LOG_FORMAT?;"),
            ),
            (
                "DRAWBRIDGE_PORT",
                "50051",
                Some(", did you mean DRAWBRIDGE_LISTEN?;"),
            ),
            ("DRAWBRIDGE_SANDBOX", "1", Some("has no effect; there are ")),
        ] {
            let warnings = unknown([(name, value)].into_iter());
            let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            match want {
                None => assert!(texts.is_empty(), "{name}: {texts:?}"),
                Some(want) => {
                    let start = format!("environment: {name}: is not a variable of drawbridge");
                    assert!(texts[0].starts_with(&start), "{texts:?}");
                    assert!(texts[0].contains(want), "{texts:?}");
                }
            }
        }
        let secret = unknown([("DRAWBRIDGE_PASSWORD", "hunter2")].into_iter());
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
