//! Messages in the JSON mapping of protobuf, <https://protobuf.dev/programming-guides/json>.

use drawbridge_transcoder::contract::Contract;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Number, Value};

/// Above this, a double does not hold every integer.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// Returns the descriptor of the response of an rpc, by its gRPC path.
pub(in crate::cli) fn response(contract: &Contract, path: &str) -> Option<MessageDescriptor> {
    let (service, rpc) = path.strip_prefix('/')?.split_once('/')?;
    contract.descriptor_sets().iter().find_map(|set| {
        let pool = DescriptorPool::decode(&**set).ok()?;
        let service = pool.get_service_by_name(service)?;
        let mut rpcs = service.methods();
        Some(rpcs.find(|method| method.name() == rpc)?.output())
    })
}

/// Returns a message as JSON. None if the bytes are not such a message.
pub(in crate::cli) fn of(descriptor: &MessageDescriptor, message: &[u8]) -> Option<Value> {
    let message = DynamicMessage::decode(descriptor.clone(), message).ok()?;
    let mut value = serde_json::to_value(&message).ok()?;
    write_integers(&mut value);
    Some(value)
}

/// Writes integers as such, as all implementations by Google do, where the numbers of a Struct
/// would be `5.0`.
fn write_integers(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(write_integers),
        Value::Object(members) => members.values_mut().for_each(write_integers),
        Value::Number(number) if number.is_f64() => {
            let double = number.as_f64().unwrap_or_default();
            if double.fract() == 0.0 && double.abs() <= MAX_EXACT_INTEGER {
                *number = Number::from(double as i64);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drawbridge_transcoder::json;
    use serde_json::json;

    #[test]
    fn message_is_in_the_mapping_of_protobuf() {
        let contract = crate::contract::with_built_in(&[]).unwrap();
        for (path, text, want) in [
            (
                "/hitachi.automation.v1.TaskService/WatchTask",
                json!({"event": {"type": "MODIFIED", "outcome": "SUCCEEDED"},
                    "task": {"instanceID": 9_007_199_254_740_993_u64, "status": "completed"}}),
                json!({"event": {"type": "WATCH_EVENT_TYPE_MODIFIED",
                        "outcome": "OUTCOME_SUCCEEDED"},
                    "task": {"instanceId": "9007199254740993", "status": "TASK_STATUS_COMPLETED", "statusRaw": "completed"}}),
            ),
            (
                "/openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment",
                json!({"event": {"observed_at": "2026-11-21T12:00:01.500Z"},
                    "software_deployment": {"output_values": {"big": 1e300, "code": 0, "share": 0.5}}}),
                json!({"event": {"observedAt": "2026-11-21T12:00:01.500Z"},
                    "softwareDeployment": {"outputValues": {"big": 1e300, "code": 0, "share": 0.5}}}),
            ),
        ] {
            let method = contract.method(path).unwrap();
            let mut wire = Vec::new();
            let text = text.to_string();
            json::to_wire(&method.schema, method.output, text.as_bytes(), &mut wire).unwrap();
            let descriptor = response(&contract, path).unwrap();
            let got = of(&descriptor, &wire).unwrap();
            // Byte for byte: 0 and 0.0 are equal as values.
            assert_eq!(got.to_string(), want.to_string());
            assert!(of(&descriptor, &[0xff]).is_none());
        }
        assert!(response(&contract, "/no.Service/Rpc").is_none());
    }
}
