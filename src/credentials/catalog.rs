//! Catalog lookup: finds the endpoint of a service and region in the catalog that a login
//! returned. `keystone` and `rackspace` call it; `Upstream::endpoint` uses the result if no
//! endpoint is configured.

use tonic::Code;
use url::Url;

use super::credential_error;
use crate::error::Error;

/// Limit of the regions in an error.
const MAX_REGIONS: usize = 100;

/// What to look up in a catalog.
pub(super) struct Lookup<'a> {
    /// The login, for errors.
    pub(super) label: &'a str,
    /// The type of the service.
    pub(super) service: &'a str,
    /// The interface of the endpoint, for errors.
    pub(super) interface: Option<&'a str>,
    /// The region. `None`: the catalog must be unambiguous, or `any_region`.
    pub(super) region: Option<&'a str>,
    /// Whether a lookup without a region finds the first of several endpoints.
    pub(super) any_region: bool,
}

/// An endpoint in a catalog.
pub(super) trait Endpoint {
    /// Returns the URL as the catalog has it.
    fn url(&self) -> &str;

    /// Returns the region's id, or its name.
    fn region(&self) -> Option<&str>;

    /// Returns whether the endpoint is in this region.
    fn is_in(&self, region: &str) -> bool;
}

impl Lookup<'_> {
    /// Finds the endpoint in the region, among those of the service.
    ///
    /// # Errors
    ///
    /// Fails if the service has no endpoint in the region, or if its URL is invalid.
    pub(super) fn find<'e, E: Endpoint>(&self, endpoints: &[&'e E]) -> Result<(&'e E, Url), Error> {
        let found = match self.region {
            Some(region) => endpoints.iter().find(|endpoint| endpoint.is_in(region)),
            None => endpoints
                .first()
                .filter(|_| self.any_region || endpoints.len() == 1),
        };
        let Some(endpoint) = found else {
            let regions = endpoints.iter().filter_map(|e| e.region());
            return Err(self.not_found(regions));
        };
        let url = Url::parse(endpoint.url()).map_err(|e| {
            let Self { label, service, .. } = self;
            credential_error(
                Code::FailedPrecondition,
                format!("the catalog of {label} has an invalid URL for {service}: {e}"),
            )
        })?;
        Ok((endpoint, url))
    }

    /// Returns the error of a catalog without the service, or without the region.
    fn not_found<'e>(&self, regions: impl Iterator<Item = &'e str>) -> Error {
        let mut regions: Vec<&str> = regions.take(MAX_REGIONS).collect();
        regions.sort_unstable();
        regions.dedup();
        let regions_list = regions.join(", ");
        let problem = match (self.region, regions.is_empty()) {
            (_, true) => "none in any region: check that the service exists and that the login \
                          has a project, or configure `endpoint`"
                .to_owned(),
            (Some(region), false) => format!("none in region {region}: there is {regions_list}"),
            (None, false) => format!("set the region: there is {regions_list}"),
        };
        let Self { label, service, .. } = self;
        let interface = self
            .interface
            .map_or_else(String::new, |interface| format!(" ({interface})"));
        credential_error(
            Code::FailedPrecondition,
            format!("no endpoint for {service}{interface} in the catalog of {label}: {problem}"),
        )
    }
}
