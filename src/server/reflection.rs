//! Server reflection. Serves the encoded descriptor sets, which keep the options.

use drawbridge_transcoder::contract::Contract;
use tonic_reflection::server::Builder;

/// Returns reflection over all descriptor sets and gRPC's own health service.
pub(super) fn builder(contract: &Contract) -> Builder<'_> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    contract.descriptor_sets().iter().fold(
        Builder::configure().register_encoded_file_descriptor_set(health),
        |builder, set| builder.register_encoded_file_descriptor_set(set),
    )
}
