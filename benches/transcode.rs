//! JSON to protobuf and back: the transcoder compared with serde and prost, and with
//! prost-reflect. Prints nanoseconds per operation, the minimum of many rounds.
//!
//!     cargo bench --bench transcode

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark may panic, and prints its results"
)]

#[path = "support/api.rs"]
mod api;
#[path = "support/plain.rs"]
#[allow(dead_code)]
mod plain;
#[path = "support/sample.rs"]
mod sample;

use std::hint::black_box;
use std::time::{Duration, Instant};

use api::openstack::orchestration::v1 as pb;
use drawbridge_transcoder::json;
use drawbridge_transcoder::schema::Schema;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Returns the minimum time of one run, over rounds of about a second in total.
fn least(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut least = f64::MAX;
    while begun.elapsed() < Duration::from_secs(1) {
        let round = Instant::now();
        let mut runs = 0;
        while round.elapsed() < Duration::from_millis(10) {
            work();
            runs += 1;
        }
        least = least.min(round.elapsed().as_nanos() as f64 / f64::from(runs));
    }
    least
}

fn row(name: &str, bytes: usize, ours: f64, serde: f64, reflect: f64) {
    println!(
        "{name:34} {ours:10.0} ns {:7.0} MB/s   serde+prost {serde:10.0} ns ({:4.1}x)   prost-reflect {reflect:10.0} ns ({:4.1}x)",
        bytes as f64 * 1000.0 / ours,
        serde / ours,
        reflect / ours,
    );
}

fn main() {
    let pool = DescriptorPool::decode(drawbridge::contract::BUILT_IN).unwrap();
    let schema = Schema::build(&pool).unwrap();
    let package = "openstack.orchestration.v1";
    let one_name = format!("{package}.GetSoftwareDeploymentResponse");
    let many_name = format!("{package}.ListSoftwareDeploymentsResponse");
    for (label, json, name) in [
        ("one deployment", sample::one(), &one_name),
        ("a list of 1,000", sample::many(1000), &many_name),
    ] {
        let id = schema.message_id(name).unwrap();
        let descriptor = pool.get_message_by_name(name).unwrap();
        let many = label.starts_with('a');
        let text = json.as_bytes();
        let mut wire = Vec::new();
        json::to_wire(&schema, id, text, &mut wire).unwrap();

        let mut out = Vec::with_capacity(wire.len() * 2);
        let ours = least(|| {
            out.clear();
            json::to_wire(&schema, id, black_box(text), &mut out).unwrap();
        });
        let serde = least(|| {
            black_box(if many {
                let many: plain::Many = serde_json::from_slice(black_box(text)).unwrap();
                let items = many.software_deployments.into_iter().map(plain::to_message);
                pb::ListSoftwareDeploymentsResponse {
                    software_deployments: items.collect(),
                }
                .encode_to_vec()
            } else {
                let one: plain::One = serde_json::from_slice(black_box(text)).unwrap();
                let item = Some(plain::to_message(one.software_deployment));
                pb::GetSoftwareDeploymentResponse {
                    software_deployment: item,
                }
                .encode_to_vec()
            });
        });
        // prost-reflect reads other names of fields and enum values; this JSON has the same
        // size.
        let readable = json.replace("\"CREATE\"", "2").replace("\"COMPLETE\"", "2");
        let reflect = least(|| {
            let mut reader = serde_json::Deserializer::from_slice(black_box(readable.as_bytes()));
            let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
            let message =
                DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &options)
                    .unwrap();
            black_box(message.encode_to_vec());
        });
        row(
            &format!("{label}: JSON to protobuf"),
            text.len(),
            ours,
            serde,
            reflect,
        );

        let mut out = Vec::with_capacity(text.len() * 2);
        let ours = least(|| {
            out.clear();
            json::to_json(&schema, id, black_box(&wire), &|_| false, &mut out).unwrap();
        });
        let serde = least(|| {
            let back = |d: pb::SoftwareDeployment| plain::Deployment {
                id: d.id,
                config_id: d.config_id,
                server_id: d.server_id,
                input_values: d.input_values.map(plain::from_value),
                output_values: d.output_values.map(plain::from_value),
                action: d.action_raw,
                status: d.status_raw,
                status_reason: d.status_reason,
                creation_time: d.creation_time.map(|t| t.to_string()),
                updated_time: d.updated_time.map(|t| t.to_string()),
            };
            black_box(if many {
                let list =
                    pb::ListSoftwareDeploymentsResponse::decode(black_box(&wire[..])).unwrap();
                let items = list.software_deployments.into_iter().map(back).collect();
                serde_json::to_vec(&plain::Many {
                    software_deployments: items,
                })
                .unwrap()
            } else {
                let one = pb::GetSoftwareDeploymentResponse::decode(black_box(&wire[..])).unwrap();
                let item = back(one.software_deployment.unwrap());
                serde_json::to_vec(&plain::One {
                    software_deployment: item,
                })
                .unwrap()
            });
        });
        let reflect = least(|| {
            let message = DynamicMessage::decode(descriptor.clone(), black_box(&wire[..])).unwrap();
            let options = prost_reflect::SerializeOptions::new()
                .stringify_64_bit_integers(false)
                .use_proto_field_name(true);
            let mut out = Vec::new();
            let mut writer = serde_json::Serializer::new(&mut out);
            message
                .serialize_with_options(&mut writer, &options)
                .unwrap();
            black_box(out);
        });
        row(
            &format!("{label}: protobuf to JSON"),
            text.len(),
            ours,
            serde,
            reflect,
        );
    }
}
