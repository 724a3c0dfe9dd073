//! The registry of upstreams: selects the one that serves a call.

use std::sync::Arc;

use http::HeaderMap;

use super::{ExchangeHook, Settings, Upstream};
use crate::error::Error;
use crate::upstream::family::Families;

/// Metadata key with which a client names an upstream.
pub const UPSTREAM_KEY: &str = "drawbridge-upstream";

/// Limit of an unknown name in the error, in characters.
const MAX_NAME_CHARS: usize = 64;

/// All upstreams, by name and by family.
#[derive(Debug, Default)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
    /// Indices in `all` of the upstreams that serve clients that name none.
    defaults: Vec<usize>,
}

impl Upstreams {
    /// Builds all configured upstreams; `hook` returns the exchange hook of an upstream's name.
    /// Returns all problems at once.
    pub fn build(
        settings: &[Settings],
        families: Families,
        hook: impl Fn(&str) -> Option<ExchangeHook>,
    ) -> Result<Self, Vec<String>> {
        Self::default().build_next(settings, families, hook)
    }

    /// As [`Self::build`], with the upstreams of `self` whose configuration is the same: their
    /// connections, tokens and states stay.
    pub fn build_next(
        &self,
        settings: &[Settings],
        families: Families,
        hook: impl Fn(&str) -> Option<ExchangeHook>,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut all = Vec::new();
        for settings in settings {
            let same = |known: &&Arc<Upstream>| known.settings.is_configured_as(settings);
            if let Some(known) = self.all.iter().find(same) {
                all.push(known.clone());
                continue;
            }
            match Upstream::new(
                settings.clone(),
                families(&settings.family),
                hook(&settings.name),
            ) {
                Ok(upstream) => all.push(Arc::new(upstream)),
                Err(e) => problems.push(format!("upstream {}: {e}", settings.name)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Self::new(all).map_err(|e| vec![e])
    }

    /// Fails if two upstreams have the same name, or a family has two defaults.
    pub fn new(all: Vec<Arc<Upstream>>) -> Result<Self, String> {
        for (i, one) in all.iter().enumerate() {
            for other in &all[..i] {
                let (a, b) = (&one.settings, &other.settings);
                if a.name == b.name {
                    return Err(format!("two upstreams are named {}", a.name));
                }
                if a.family == b.family && a.is_default && b.is_default {
                    return Err(format!(
                        "upstreams {} and {} are both the default of family {}",
                        b.name, a.name, a.family
                    ));
                }
            }
        }
        let alone = |family: &str| all.iter().filter(|u| u.settings.family == family).count() == 1;
        let defaults = (0..all.len())
            .filter(|i| {
                let settings = &all[*i].settings;
                settings.is_default || alone(&settings.family)
            })
            .collect();
        Ok(Self { all, defaults })
    }

    /// Returns the upstream named by the metadata `drawbridge-upstream`, else the family's
    /// default: the one with `is_default`, or the only one. Fails with `UnknownUpstream` or
    /// `NotConfigured` and the existing names.
    pub fn select(&self, family: &str, metadata: &HeaderMap) -> Result<&Arc<Upstream>, Error> {
        let mut named = metadata.get_all(UPSTREAM_KEY).iter();
        let first = named.next();
        if named.next().is_some() {
            return Err(Error::UnknownUpstream(format!(
                "metadata `{UPSTREAM_KEY}` is given more than once: name one upstream"
            )));
        }
        let found = match first {
            Some(name) => self
                .of(family)
                .find(|u| u.settings.name.as_bytes() == name.as_bytes()),
            None => self
                .defaults
                .iter()
                .map(|i| &self.all[*i])
                .find(|u| u.settings.family == family),
        };
        found.ok_or_else(|| self.not_found(family, metadata))
    }

    /// Returns whether it serves the clients of its family that name no upstream.
    pub fn is_default(&self, upstream: &Upstream) -> bool {
        let mut defaults = self.defaults.iter();
        defaults.any(|i| std::ptr::eq(&*self.all[*i], upstream))
    }

    /// Ends the calls in flight.
    pub(crate) fn cut_off(&self) {
        for upstream in &self.all {
            upstream.cut_off().begin();
        }
    }

    /// Returns the upstreams that `next` does not have.
    pub(crate) fn missing_in(&self, next: &Self) -> Vec<Arc<Upstream>> {
        let is_kept = |one: &Arc<Upstream>| next.all.iter().any(|other| Arc::ptr_eq(one, other));
        self.all
            .iter()
            .filter(|one| !is_kept(one))
            .cloned()
            .collect()
    }

    /// Returns all upstreams in the order of the configuration.
    pub fn all(&self) -> &[Arc<Upstream>] {
        &self.all
    }

    /// Returns the upstreams of a family.
    pub fn of(&self, family: &str) -> impl Iterator<Item = &Arc<Upstream>> {
        self.all.iter().filter(move |u| u.settings.family == family)
    }

    fn not_found(&self, family: &str, metadata: &HeaderMap) -> Error {
        let names: Vec<&str> = self.of(family).map(|u| &*u.settings.name).collect();
        let names = names.join(", ");
        match metadata.get(UPSTREAM_KEY) {
            _ if names.is_empty() => {
                Error::NotConfigured(format!("no upstream of family {family} is configured"))
            }
            None => Error::NotConfigured(format!(
                "family {family} has several upstreams and no default: name one in the metadata `{UPSTREAM_KEY}`: {names}"
            )),
            Some(name) => {
                let name = String::from_utf8_lossy(name.as_bytes());
                let name: String = name.chars().take(MAX_NAME_CHARS).collect();
                Error::UnknownUpstream(format!(
                    "metadata `{UPSTREAM_KEY}`: no upstream of family {family} is named {name:?}; there are: {names}"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::credentials;
    use crate::families::COMMON;

    fn upstreams(all: &[(&str, &str, bool)]) -> Result<Upstreams, String> {
        let all = all.iter().map(|(name, family, is_default)| {
            Arc::new(
                Upstream::new(
                    Settings {
                        is_default: *is_default,
                        ..Settings::new(*name, *family, credentials::Settings::None)
                    },
                    &COMMON,
                    None,
                )
                .unwrap(),
            )
        });
        Upstreams::new(all.collect())
    }

    #[test]
    fn metadata_selects_the_upstream_else_the_default() {
        let upstreams = upstreams(&[
            ("one", "heat", false),
            ("two", "heat", true),
            ("alone", "jp1ao", false),
            ("left", "own", false),
            ("right", "own", false),
        ])
        .unwrap();
        for (family, name, want) in [
            ("heat", None, Ok("two")),
            ("heat", Some("one"), Ok("one")),
            ("heat", Some("two"), Ok("two")),
            (
                "heat",
                Some("alone"),
                Err("is named \"alone\"; there are: one, two"),
            ),
            ("heat", Some(""), Err("is named \"\"; there are: one, two")),
            ("jp1ao", None, Ok("alone")),
            (
                "own",
                None,
                Err("no default: name one in the metadata `drawbridge-upstream`: left, right"),
            ),
            ("own", Some("right"), Ok("right")),
            (
                "none",
                None,
                Err("no upstream of family none is configured"),
            ),
            (
                "none",
                Some("one"),
                Err("no upstream of family none is configured"),
            ),
        ] {
            let mut metadata = HeaderMap::new();
            if let Some(name) = name {
                metadata.insert(UPSTREAM_KEY, HeaderValue::from_static(name));
            }
            match (upstreams.select(family, &metadata), want) {
                (Ok(upstream), Ok(want)) => assert_eq!(upstream.settings.name, want),
                (Err(error), Err(want)) => assert!(error.to_string().ends_with(want), "{error}"),
                (got, want) => panic!("{family} {name:?}: {got:?}, not {want:?}"),
            }
        }
        assert_eq!(upstreams.all().len(), 5);
        let mut defaults = upstreams.all().to_vec();
        defaults.retain(|upstream| upstreams.is_default(upstream));
        let defaults: Vec<_> = defaults.iter().map(|u| &*u.settings.name).collect();
        assert_eq!(defaults, ["two", "alone"]);
    }

    #[test]
    fn repeated_name_is_rejected() {
        let upstreams = upstreams(&[("one", "heat", false), ("two", "heat", true)]).unwrap();
        let mut metadata = HeaderMap::new();
        metadata.append(UPSTREAM_KEY, HeaderValue::from_static("one"));
        assert!(upstreams.select("heat", &metadata).is_ok());
        metadata.append(UPSTREAM_KEY, HeaderValue::from_static("two"));
        let error = upstreams.select("heat", &metadata).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.to_string().contains("more than once"), "{error}");
    }

    #[test]
    fn long_or_binary_name_is_truncated_in_the_error() {
        let upstreams = upstreams(&[("one", "heat", false)]).unwrap();
        let name = HeaderValue::from_bytes(&[0xff; 4_000]).unwrap();
        let metadata = HeaderMap::from_iter([(http::HeaderName::from_static(UPSTREAM_KEY), name)]);
        match upstreams.select("heat", &metadata) {
            Err(Error::UnknownUpstream(text)) => assert!(text.len() < 400, "{text}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn duplicate_names_and_defaults_are_rejected() {
        for (all, want) in [
            (
                &[("one", "heat", false), ("one", "jp1ao", false)],
                "two upstreams are named one",
            ),
            (
                &[("one", "heat", true), ("two", "heat", true)],
                "upstreams one and two are both the default of family heat",
            ),
        ] {
            assert_eq!(upstreams(all).unwrap_err(), want);
        }
    }
}
