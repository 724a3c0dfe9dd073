//! Catalog lookup: a login returns a catalog of services, in which `keystone` and
//! `rackspace` find the endpoint of the upstream's service and region. `upstream::endpoint`
//! uses it if no endpoint is configured.

use tonic::Code;

use super::credential_error;
use crate::error::Error;

/// Limit of the regions in an error.
const MAX_REGIONS: usize = 100;

/// Returns the error of a catalog without the service, or without the region.
pub(super) fn not_found(
    label: &str,
    service: &str,
    region: Option<&str>,
    regions: impl IntoIterator<Item = String>,
) -> Error {
    let mut regions: Vec<String> = regions.into_iter().take(MAX_REGIONS).collect();
    regions.sort();
    regions.dedup();
    let regions_list = regions.join(", ");
    let problem = match (region, regions.is_empty()) {
        (_, true) => "none in any region: check that the service exists and that the login has a \
                      project, or configure `endpoint`"
            .to_owned(),
        (Some(region), false) => format!("none in region {region}: there is {regions_list}"),
        (None, false) => format!("set the region: there is {regions_list}"),
    };
    credential_error(
        Code::FailedPrecondition,
        format!("no endpoint for {service} in the catalog of {label}: {problem}"),
    )
}
