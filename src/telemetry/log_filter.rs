//! The filter of the log: a level, or directives like those of `RUST_LOG`.

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::spelling::nearest;

/// The levels, from the fewest lines to the most.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Levels as other programs name them.
const FOREIGN_LEVELS: [(&str, &str); 8] = [
    ("warning", "warn"),
    ("err", "error"),
    ("fatal", "error"),
    ("critical", "error"),
    ("information", "info"),
    ("notice", "info"),
    ("verbose", "debug"),
    ("none", "off"),
];

/// The level of the gateway's own events if the text has directives and no level.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::INFO;

/// The highest level of dependencies that no directive names.
const DEPENDENCY_LEVEL: LevelFilter = LevelFilter::WARN;

/// Parts of h2 that write a warning for each frame of a kind that a client can send at will:
/// acknowledgements of pings that were not sent.
const WARNS_PER_FRAME: [&str; 1] = ["h2::proto::ping_pong"];

/// The crates of the gateway. The filter compares the beginning of a target: the first one
/// covers the others.
const OWN_CRATES: [&str; 3] = ["drawbridge", "drawbridge_sandbox", "drawbridge_transcoder"];

/// The parts of the gateway: the modules of `src/`.
const OWN_MODULES: [&str; 19] = [
    "admin",
    "cli",
    "config",
    "contract",
    "credentials",
    "deadline",
    "downstream",
    "engine",
    "error",
    "families",
    "http_client",
    "memory",
    "policy",
    "reload",
    "server",
    "spelling",
    "telemetry",
    "upstream",
    "watch",
];

/// Dependencies that write to the log.
const DEPENDENCIES: [&str; 22] = [
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "log",
    "mio",
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "prost",
    "prost_reflect",
    "reqwest",
    "rustls",
    "rustls_platform_verifier",
    "tokio",
    "tokio_util",
    "tonic",
    "tower",
    "tower_http",
    "tracing",
    "tracing_opentelemetry",
    "want",
];

/// A checked filter of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter {
    targets: Targets,
    /// Targets that no part of the program has: a directive without effect.
    pub warnings: Vec<String>,
}

impl LogFilter {
    /// Reads a filter: directives separated by commas. A level without a target is that of the
    /// gateway's own events; dependencies log at most warnings, unless a directive names them.
    ///
    /// # Errors
    ///
    /// Returns the problem of a text with an unknown level, or without a directive.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut own = DEFAULT_LEVEL;
        let mut named = Vec::new();
        let mut warnings = Vec::new();
        let directives = text.split(',').map(str::trim).filter(|d| !d.is_empty());
        let directives: Vec<&str> = directives.collect();
        if directives.is_empty() {
            return Err(format!("is empty: {}", advice()));
        }
        for directive in directives {
            if directive.contains(['[', ']', '{', '}']) {
                return Err(format!(
                    "selects spans by `{directive}`, which is not supported: {}",
                    advice()
                ));
            }
            match directive.split_once('=') {
                Some((target, word)) => {
                    let target = target.trim();
                    warnings.extend(unknown_target(target));
                    named.push((target.to_owned(), level(word)?));
                }
                None => own = level(directive)?,
            }
        }
        let mut targets = Targets::new()
            .with_default(own.min(DEPENDENCY_LEVEL))
            .with_target(OWN_CRATES[0], own);
        // The most specific target counts, also against a directive for all of its crate.
        let is_h2 = |target: &str| target.split("::").next() == Some("h2");
        if !named.iter().any(|(target, _)| is_h2(target)) {
            let level = own.min(LevelFilter::ERROR);
            targets = targets.with_targets(WARNS_PER_FRAME.map(|target| (target, level)));
        }
        let targets = targets.with_targets(named);
        Ok(Self { targets, warnings })
    }

    /// Returns the filter for the log.
    pub(super) fn filter(&self) -> Targets {
        self.targets.clone()
    }
}

/// Reads a level.
fn level(word: &str) -> Result<LevelFilter, String> {
    let word = word.trim();
    match word.parse() {
        // `tracing` reads numbers, too.
        Ok(level) if !word.is_empty() && !word.bytes().any(|b| b.is_ascii_digit()) => Ok(level),
        _ if word.is_empty() => Err(format!("has a target without a level: {}", advice())),
        _ => {
            let lower = word.to_ascii_lowercase();
            let foreign = FOREIGN_LEVELS.iter().find(|(other, _)| *other == lower);
            let hint = match foreign {
                Some((_, ours)) => format!(", did you mean {ours}?"),
                None if is_target(&lower) => format!(", did you mean {word}=debug?"),
                None => nearest(&lower, LEVELS.into_iter()),
            };
            Err(format!("`{word}` is not a level{hint}; {}", advice()))
        }
    }
}

/// Returns what a filter may be.
fn advice() -> String {
    format!(
        "write one of {}, or a filter like `drawbridge::watch=debug,info`",
        LEVELS.join(", ")
    )
}

/// Returns whether the word is one part of the program, or looks like one.
fn is_target(word: &str) -> bool {
    word.contains("::") || OWN_CRATES.contains(&word) || DEPENDENCIES.contains(&word)
}

/// Returns the problem of a target that no part of the program has.
fn unknown_target(target: &str) -> Option<String> {
    let mut path = target.split("::");
    let first = path.next().unwrap_or_default();
    if first.is_empty() {
        return None;
    }
    let crates = || OWN_CRATES.into_iter().chain(DEPENDENCIES);
    if !crates().any(|known| known == first) {
        let near = nearest(first, crates());
        return Some(format!(
            "nothing logs as `{target}`{near}: this directive has no effect"
        ));
    }
    let module = path.next().filter(|_| first == OWN_CRATES[0])?;
    if OWN_MODULES.contains(&module) {
        return None;
    }
    let near = nearest(module, OWN_MODULES.into_iter());
    Some(format!(
        "nothing logs as `{target}`{near}: this directive has no effect; the parts of \
         drawbridge are {}",
        OWN_MODULES.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_gateway_and_dependencies_warn() {
        for (text, want) in [
            ("info", "warn,drawbridge=info,h2::proto::ping_pong=error"),
            ("debug", "warn,drawbridge=debug,h2::proto::ping_pong=error"),
            (
                " TRACE ",
                "warn,drawbridge=trace,h2::proto::ping_pong=error",
            ),
            ("error", "error,drawbridge=error,h2::proto::ping_pong=error"),
            ("off", "off,drawbridge=off,h2::proto::ping_pong=off"),
            (
                "drawbridge::watch=debug,info",
                "warn,drawbridge=info,drawbridge::watch=debug,h2::proto::ping_pong=error",
            ),
            ("h2=debug", "warn,drawbridge=info,h2=debug"),
            ("h2 = debug", "warn,drawbridge=info,h2=debug"),
            ("warn, h2=off,", "warn,drawbridge=warn,h2=off"),
        ] {
            let filter = LogFilter::parse(text).expect(text);
            assert_eq!(filter.targets, want.parse().expect(want), "{text}");
            assert!(filter.warnings.is_empty(), "{text}: {filter:?}");
        }
    }

    #[test]
    fn unknown_levels_are_reported() {
        for (text, want) in [
            ("inof", "`inof` is not a level, did you mean info?; write"),
            (
                "loud",
                "`loud` is not a level; write one of off, error, warn, info, debug, trace",
            ),
            ("warning", "`warning` is not a level, did you mean warn?"),
            ("Fatal", "`Fatal` is not a level, did you mean error?"),
            ("info,h2=loud", "`loud` is not a level; write"),
            ("drawbridge::watch=", "has a target without a level: write"),
            (
                "drawbridge",
                "`drawbridge` is not a level, did you mean drawbridge=debug?",
            ),
            (
                "drawbridge::watch",
                "`drawbridge::watch` is not a level, did you mean drawbridge::watch=debug?",
            ),
            ("5", "`5` is not a level; write"),
            ("info,h2=0", "`0` is not a level; write"),
            ("info debug", "`info debug` is not a level"),
            ("", "is empty: write one of"),
            (" , ", "is empty: write one of"),
            (
                "info,[server{rpc=a}]=debug",
                "selects spans by `[server{rpc=a}]=debug`, which is not supported: write",
            ),
        ] {
            let problem = LogFilter::parse(text).expect_err(text);
            assert!(problem.starts_with(want), "{text}: {problem}");
        }
    }

    #[test]
    fn targets_that_nothing_has_are_warnings() {
        for (text, want) in [
            ("drawbridge=debug", None),
            ("drawbridge::watch::shared_loop=debug", None),
            ("hyper_util::client=trace,info", None),
            (
                "drawbrige=debug",
                Some("nothing logs as `drawbrige`, did you mean drawbridge?"),
            ),
            (
                "drawbridge::wacth=debug",
                Some("nothing logs as `drawbridge::wacth`, did you mean watch?"),
            ),
            (
                "other_program=info",
                Some("nothing logs as `other_program`: "),
            ),
        ] {
            let warnings = LogFilter::parse(text).expect(text).warnings;
            match want {
                None => assert!(warnings.is_empty(), "{text}: {warnings:?}"),
                Some(want) => assert!(warnings[0].starts_with(want), "{text}: {warnings:?}"),
            }
        }
    }

    #[test]
    fn known_targets_exist() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut modules: Vec<String> = std::fs::read_dir(root.join("src"))
            .expect("src")
            .filter_map(|entry| {
                let name = entry.expect("an entry").file_name();
                let name = name.to_str()?.strip_suffix(".rs")?.to_owned();
                (!["lib", "main"].contains(&&*name)).then_some(name)
            })
            .collect();
        modules.sort();
        assert_eq!(modules, OWN_MODULES);
        let lock = std::fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock");
        for name in DEPENDENCIES.iter().chain(&OWN_CRATES) {
            let line = format!("name = \"{}\"\n", name.replace('_', "-"));
            let same = format!("name = \"{name}\"\n");
            assert!(lock.contains(&line) || lock.contains(&same), "{name}");
        }
    }
}
