//! Server reflection. Serves the encoded descriptor sets, which keep the options.

use drawbridge_transcoder::contract::{Contract, GATEWAY_SERVICES};
use tonic_reflection::server::Builder;

/// Returns reflection over all descriptor sets and gRPC's own health service. Lists the
/// services that are served; files also describe those that are not.
pub(super) fn builder(contract: &Contract) -> Builder<'_> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let builder = contract.descriptor_sets().iter().fold(
        Builder::configure().register_encoded_file_descriptor_set(health),
        |builder, set| builder.register_encoded_file_descriptor_set(set),
    );
    let services = contract.services().into_keys();
    services
        .chain(GATEWAY_SERVICES)
        .fold(builder, Builder::with_service_name)
}
