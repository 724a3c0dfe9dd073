//! Catalog lookup: finds the endpoint of a service and region in the catalog that a login
//! returned. `keystone` and `rackspace` call it; `Upstream::endpoint` uses the result if no
//! endpoint is configured.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::Code;
use url::Url;

use super::credential_error;
use crate::error::Error;

/// Limit of the regions or interfaces in an error.
const MAX_WORDS: usize = 100;

/// What to look up in a catalog.
pub(super) struct Lookup<'a> {
    /// The login, for errors.
    pub(super) label: &'a str,
    /// The type of the service.
    pub(super) service: &'a str,
    /// The interfaces of the endpoint, the preferred one first. Empty: the catalog has none.
    pub(super) interfaces: &'a [String],
    /// The region. `None`: the catalog must be unambiguous.
    pub(super) region: Option<&'a str>,
}

/// An endpoint in a catalog.
pub(super) trait Endpoint {
    /// Returns the URL as the catalog has it.
    fn url(&self) -> &str;

    /// Returns the interface, if the catalog has any.
    fn interface(&self) -> Option<&str>;

    /// Returns the region's id, or its name.
    fn region(&self) -> Option<&str>;

    /// Returns whether the endpoint is in this region.
    fn is_in(&self, region: &str) -> bool;
}

/// Returns the endpoints of the services of a catalog that `wanted` accepts. Skips
/// unreadable entries, which may belong to another service, or to another region.
pub(super) fn endpoints<E: DeserializeOwned>(
    catalog: Option<Value>,
    wanted: impl Fn(&Value) -> bool,
) -> Vec<E> {
    let Some(Value::Array(services)) = catalog else {
        return Vec::new();
    };
    let wanted = services.into_iter().filter(wanted);
    let endpoints = wanted.filter_map(|mut service| match service.get_mut("endpoints")?.take() {
        Value::Array(endpoints) => Some(endpoints),
        _ => None,
    });
    let read = |endpoint| serde_json::from_value(endpoint).ok();
    endpoints.flatten().filter_map(read).collect()
}

impl Lookup<'_> {
    /// Finds the endpoint in the region, of the first interface that has one there, among
    /// those of the service.
    ///
    /// # Errors
    ///
    /// Fails if there is none, if there are several, or if its URL is invalid.
    pub(super) fn find<'e, E: Endpoint>(&self, endpoints: &'e [E]) -> Result<(&'e E, Url), Error> {
        let in_region = |endpoint: &&E| self.region.is_none_or(|region| endpoint.is_in(region));
        let of_interface = |interface: &String| {
            let found = endpoints.iter().filter(in_region);
            let found: Vec<&E> = found
                .filter(|endpoint| endpoint.interface() == Some(interface))
                .collect();
            (!found.is_empty()).then_some(found)
        };
        let found = match self.interfaces {
            [] => endpoints.iter().filter(in_region).collect(),
            interfaces => interfaces.iter().find_map(of_interface).unwrap_or_default(),
        };
        let [endpoint, others @ ..] = found.as_slice() else {
            return Err(self.error(self.not_found(endpoints)));
        };
        if others.iter().any(|other| other.url() != endpoint.url()) {
            return Err(self.error(self.ambiguous(&found)));
        }
        let url = Url::parse(endpoint.url()).map_err(|e| {
            let Self { label, service, .. } = self;
            credential_error(
                Code::FailedPrecondition,
                format!("the catalog of {label} has an invalid URL for {service}: {e}"),
            )
        })?;
        Ok((endpoint, url))
    }

    /// Describes a catalog without the endpoint: what there is instead.
    fn not_found<E: Endpoint>(&self, endpoints: &[E]) -> String {
        let wanted = |e: &&E| {
            let interface = e.interface().unwrap_or_default();
            self.interfaces.is_empty() || self.interfaces.iter().any(|wanted| wanted == interface)
        };
        let regions = list(endpoints.iter().filter(wanted).filter_map(|e| e.region()));
        if let (Some(region), false) = (self.region, regions.is_empty()) {
            return format!("none in region {region}: there is {regions}");
        }
        // In the region if possible, else anywhere.
        let in_region = |e: &&E| self.region.is_none_or(|region| e.is_in(region));
        for (there, of) in [
            (
                self.region,
                list(
                    endpoints
                        .iter()
                        .filter(in_region)
                        .filter_map(|e| e.interface()),
                ),
            ),
            (None, list(endpoints.iter().filter_map(|e| e.interface()))),
        ] {
            if !of.is_empty() {
                let region =
                    there.map_or_else(String::new, |region| format!(" in region {region}"));
                return format!("there is {of}{region}: set interface");
            }
        }
        "none in any region: check that the service exists and that the login has a project, or \
         configure `endpoint`"
            .to_owned()
    }

    /// Describes several endpoints.
    fn ambiguous<E: Endpoint>(&self, found: &[&E]) -> String {
        let regions: Vec<&str> = found.iter().filter_map(|e| e.region()).collect();
        let first = regions.first();
        match regions.iter().any(|region| Some(region) != first) && self.region.is_none() {
            true => format!("set the region: there is {}", list(regions.into_iter())),
            false => format!(
                "there are several: set `endpoint` to one of {}",
                list(found.iter().map(|endpoint| endpoint.url()))
            ),
        }
    }

    fn error(&self, problem: String) -> Error {
        let Self { label, service, .. } = self;
        let interfaces = match self.interfaces {
            [] => String::new(),
            interfaces => format!(" ({})", interfaces.join(", ")),
        };
        credential_error(
            Code::FailedPrecondition,
            format!("no endpoint for {service}{interfaces} in the catalog of {label}: {problem}"),
        )
    }
}

/// Returns words in order, each once.
fn list<'e>(words: impl Iterator<Item = &'e str>) -> String {
    let mut words: Vec<&str> = words.take(MAX_WORDS).collect();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}
