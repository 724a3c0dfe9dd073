//! `drawbridge config example`: configuration files to begin with.

use clap::Subcommand;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use super::Failure;
use crate::spelling::nearest;

/// The example for those who name none: six lines.
const DEFAULT: &str = "minimal";

/// The examples by their names: `minimal`, and one per source or kind of credentials.
pub const EXAMPLES: &[(&str, &str)] = &[
    (
        "minimal",
        include_str!("../../examples/config/minimal.toml"),
    ),
    ("cloud", include_str!("../../examples/config/cloud.toml")),
    (
        "from_env",
        include_str!("../../examples/config/from_env.toml"),
    ),
    (
        "keystone",
        include_str!("../../examples/config/keystone.toml"),
    ),
    (
        "application_credential",
        include_str!("../../examples/config/application_credential.toml"),
    ),
    (
        "rackspace",
        include_str!("../../examples/config/rackspace.toml"),
    ),
    ("ak_sk", include_str!("../../examples/config/ak_sk.toml")),
    ("basic", include_str!("../../examples/config/basic.toml")),
    ("hsso", include_str!("../../examples/config/hsso.toml")),
    ("token", include_str!("../../examples/config/token.toml")),
    (
        "passthrough",
        include_str!("../../examples/config/passthrough.toml"),
    ),
    ("none", include_str!("../../examples/config/none.toml")),
    ("all", include_str!("../../drawbridge.example.toml")),
];

#[derive(Clone, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a configuration file to begin with. KIND is a kind of credentials (keystone,
    /// application_credential, rackspace, ak_sk, basic, hsso, token, passthrough, none), or where
    /// they come from (cloud, from_env); or `all`, for every key. Default: the minimal file.
    Example {
        /// The example.
        #[arg(value_name = "KIND", default_value = DEFAULT, hide_possible_values = true,
            value_parser = names())]
        kind: String,
    },
    /// Print a JSON Schema of the configuration file, for editors.
    Schema,
}

/// Returns a parser that knows the names, for completions, and accepts any: [`example`] says what
/// there is.
fn names() -> impl TypedValueParser<Value = String> {
    #[derive(Clone)]
    struct Names;
    impl TypedValueParser for Names {
        type Value = String;

        fn parse_ref(
            &self,
            command: &clap::Command,
            arg: Option<&clap::Arg>,
            value: &std::ffi::OsStr,
        ) -> Result<String, clap::Error> {
            StringValueParser::new().parse_ref(command, arg, value)
        }

        fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
            let names = EXAMPLES.iter().map(|(name, _)| PossibleValue::new(*name));
            Some(Box::new(names))
        }
    }
    Names
}

/// Returns an example.
pub(super) fn example(kind: &str) -> Result<&'static str, Failure> {
    let found = EXAMPLES.iter().find(|(name, _)| *name == kind);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        Failure::Usage(format!(
            "there is no example {kind}{}; there are: {}",
            nearest(kind, names.iter().copied()),
            names.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn examples_load() {
        let directory = tempfile::tempdir().expect("a directory");
        let clouds = directory.path().join("clouds.yaml");
        let cloud = "clouds: {north: {auth: {auth_url: 'https://k.test', username: u, password: x, \
                     project_id: p, user_domain_id: d}}}";
        std::fs::write(&clouds, cloud).expect("written");
        let env = |name: &str| match name {
            "OS_CLIENT_CONFIG_FILE" => Some(clouds.display().to_string()),
            "OS_CLOUD" => Some("north".to_owned()),
            name => ["_PASSWORD", "_SECRET", "_KEY", "_TOKEN"]
                .iter()
                .any(|end| name.ends_with(end) && !name.starts_with("OS_"))
                .then(|| "secret".to_owned()),
        };
        let path = directory.path().join("drawbridge.toml");
        for (name, text) in EXAMPLES {
            std::fs::write(&path, text).expect("written");
            let config = match Config::load(&path, &env) {
                Ok(config) => config,
                Err(problems) => panic!("{name}: {problems:?}"),
            };
            assert!(config.warnings.is_empty(), "{name}: {:?}", config.warnings);
            if *name == "all" {
                continue;
            }
            // The name is the kind, or a source of a Keystone login.
            let kind = config.upstreams[0].auth.kind();
            let is_kind = kind == *name;
            assert!(is_kind || kind == "keystone", "{name}: {kind}");
        }
        assert_eq!(EXAMPLES[0].1.lines().count(), 6);
    }

    #[test]
    fn unknown_example_has_a_hint() {
        let Err(Failure::Usage(text)) = example("keyston") else {
            panic!("an example");
        };
        assert!(text.contains("did you mean keystone?"), "{text}");
    }
}
