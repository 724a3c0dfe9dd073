//! Replays every recorded exchange of configs, deployments and tokens, in a possible
//! order of the recording. Each response must equal the recorded one, apart from ids,
//! times and links.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use super::{TEST_SETTINGS, TestSandbox};
use crate::{
    APPLICATION_CREDENTIAL_ID, APPLICATION_CREDENTIAL_SECRET, OTHER_PROJECT_ID, OTHER_USERNAME,
    PASSWORD, PROJECT_ID, READER_USERNAME, USERNAME,
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");

pub(super) fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(FIXTURES).join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Made by a stack; covered by the transcript.
const MADE_BY_STACK: [&str; 2] = [
    "software_deployments.metadata.from_stack",
    "software_deployments.show.from_stack",
];

/// Objects and changes of the recorded run without a fixture of their own: `make` and
/// the recorded id; `put`, the id and the body.
const RECORDED_RUN: &str = r#"
software_configs.create.ok
software_configs.create.minimal
software_configs.create.empty_object
software_configs.create.null_fields
software_configs.create.config_object
make software_configs 77a604ba-4c07-4f75-8e17-09a99159ffe7
make software_configs e5bb8ac6-db5b-4578-a9ab-819787c47a1f
make software_configs 0451c88c-48eb-456d-bbe2-3cd5d8b87c1b
software_configs.create.long_name
software_configs.create.oversize
software_configs.create.malformed_json
software_configs.create.no_body
software_configs.create.inputs_not_list
software_configs.create.input_without_name
software_configs.create.input_default_mismatch
software_configs.create.no_content_type
make software_configs 50c38fc9-c7db-4983-900d-34ed036685ab
make software_configs 420ef4c3-edfe-44ee-a687-496507d42739
software_configs.collection.method_not_allowed
software_configs.list.ok
software_configs.list.limit
software_configs.list.limit_bad
software_configs.list.limit_negative
software_configs.list.limit_zero
software_configs.list.marker
software_configs.list.marker_unknown
software_configs.list.unknown_param
software_configs.list.global_tenant.forbidden
software_configs.show.ok
software_configs.show.minimal
software_configs.show.not_a_uuid
software_configs.show.other_project
software_configs.show.trailing_slash
software_configs.show.unknown
software_configs.update.method_not_allowed
software_configs.delete.ok
software_configs.delete.twice
software_configs.delete.unknown
auth.heat.application_credential.create_stack
auth.heat.bad_token
auth.heat.bad_token.post
auth.heat.missing_token
auth.heat.other_project_path
auth.heat.reader.create_software_config
auth.heat.reader.create_software_deployment
auth.heat.reader.create_stack
auth.heat.reader.list_stacks
auth.heat.token.expired
auth.heat.token.expired.post
auth.heat.unknown_project_path
software_deployments.create.ok
software_deployments.create.minimal
make software_deployments e072d38e-04e3-4a6b-8188-2467a33b8abf
software_deployments.create.server_name_not_uuid
software_deployments.create.no_server
software_deployments.create.empty_object
software_deployments.create.not_an_object
software_deployments.create.unknown_config
make software_deployments fca79356-3c99-4daa-9e49-c4a714c86e68
software_deployments.create.given_deployment_id
software_deployments.create.duplicate_id
software_deployments.create.unknown_field
software_deployments.create.odd_status
software_deployments.create.output_values
software_deployments.create.input_values_list
make software_deployments ea1e6be9-d141-4451-8989-f98c6a57ca53
software_deployments.create.status_number
make software_deployments e5f132a2-30e4-4e4d-8070-6f102e91630a
software_deployments.list.ok
software_deployments.list.server
software_deployments.list.server_unknown
software_deployments.list.other_project
software_deployments.list.unknown_param
software_deployments.metadata.ok
software_deployments.metadata.no_server
software_deployments.metadata.other_project
software_deployments.show.ok
software_deployments.show.minimal
software_deployments.show.unknown
software_deployments.show.other_project
software_deployments.update.in_progress
software_deployments.update.failed
software_deployments.update.back_to_in_progress
software_deployments.update.config_unknown
make software_configs 0b6e911e-9178-4c66-9d04-88d3f3fd7245
software_deployments.update.config_id
software_deployments.update.server_id_ignored
software_deployments.update.updated_at
software_deployments.update.updated_at_bad
software_deployments.update.unknown_field
software_deployments.show.updated
software_deployments.update.patch_not_allowed
software_deployments.update.post_not_allowed
software_deployments.update.malformed_json
software_deployments.update.no_body
software_deployments.update.unknown
software_deployments.update.other_project
software_deployments.update.complete
put a9c794b3-edd8-418a-b2b6-11c5398f7068 {"output_values": {"only": "this"}}
software_deployments.update.output_values_null
software_deployments.update.output_values_empty
put a9c794b3-edd8-418a-b2b6-11c5398f7068 {"input_values": {"foo": "bar"}}
software_deployments.update.empty_object
software_deployments.update.status_null
software_deployments.delete.ok
software_deployments.delete.unknown
software_deployments.show.deleted
software_configs.show.after_deployment_delete
"#;

struct Replayer {
    sandbox: TestSandbox,
    /// Sandbox ids by recorded ids.
    ids: HashMap<String, String>,
    tokens: HashMap<&'static str, String>,
}

impl Replayer {
    async fn new() -> Self {
        let sandbox = TestSandbox::new(TEST_SETTINGS);
        let credential =
            json!({"id": APPLICATION_CREDENTIAL_ID, "secret": APPLICATION_CREDENTIAL_SECRET});
        let identity =
            json!({"methods": ["application_credential"], "application_credential": credential});
        let tokens = HashMap::from([
            ("demo", sandbox.demo().await),
            (
                "other",
                sandbox.login(OTHER_USERNAME, Some(OTHER_PROJECT_ID)).await,
            ),
            (
                "reader",
                sandbox.login(READER_USERNAME, Some(PROJECT_ID)).await,
            ),
            (
                "credential",
                sandbox
                    .token_of(json!({"auth": {"identity": identity}}))
                    .await,
            ),
        ]);
        Self {
            sandbox,
            ids: HashMap::new(),
            tokens,
        }
    }

    /// Replaces recorded ids in the text with the sandbox's.
    fn to_sandbox_ids(&self, text: &str) -> String {
        self.ids
            .iter()
            .fold(text.to_owned(), |text, (recorded, ours)| {
                text.replace(recorded, ours)
            })
    }

    fn token(&self, name: &str) -> &str {
        let who = match name {
            "auth.heat.application_credential.create_stack" => "credential",
            "software_configs.show.other_project"
            | "software_deployments.list.other_project"
            | "software_deployments.metadata.other_project"
            | "software_deployments.show.other_project"
            | "software_deployments.update.other_project" => "other",
            name if name.starts_with("auth.heat.reader.") => "reader",
            name if name.contains("bad_token") || name.contains("expired") => return "garbage",
            _ => "demo",
        };
        &self.tokens[who]
    }

    async fn make(&mut self, noun: &str, recorded: &str) {
        let listed = read(&format!("heat/{noun}.list.ok.json"));
        let listed = listed["response"]["body"][noun].as_array().unwrap();
        let mut body = listed
            .iter()
            .find(|one| one["id"] == recorded)
            .cloned()
            .unwrap_or(json!({"name": "a newer one"}));
        if body["name"] == "5" {
            body["name"] = json!(5);
        }
        if body["status_reason"] == "None" {
            body["status_reason"] = Value::Null;
        }
        let body = serde_json::from_str(&self.to_sandbox_ids(&body.to_string())).unwrap();
        let path = format!("/v1/{PROJECT_ID}/{noun}");
        let made = self
            .sandbox
            .call(&self.tokens["demo"], "POST", &path, body)
            .await;
        let id = made.body[noun.trim_end_matches('s')]["id"]
            .as_str()
            .unwrap();
        self.ids.insert(recorded.to_owned(), id.to_owned());
    }

    async fn replay(&mut self, name: &str) {
        let fixture = read(&format!("heat/{name}.json"));
        let (request, response) = (&fixture["request"], &fixture["response"]);
        let body = match &request["body"] {
            Value::Null => None,
            // Not JSON, or sent verbatim.
            Value::String(text) => Some(text.clone()),
            // As formatted by Python: the message contains its length.
            _ if name.ends_with("create.oversize") => Some(format!(
                "{{\"name\": \"big\", \"config\": \"{}\"}}",
                "x".repeat(1_100_000)
            )),
            body => Some(body.to_string()),
        };
        let body = body.map(|body| self.to_sandbox_ids(&body));
        let path = self.to_sandbox_ids(request["path"].as_str().unwrap());
        let token = [("x-auth-token", self.token(name))];
        let headers = if name.contains("missing_token") {
            &[]
        } else {
            &token[..]
        };
        let got = self
            .sandbox
            .send(
                request["method"].as_str().unwrap(),
                &path,
                headers,
                body.as_deref(),
            )
            .await;

        assert_eq!(
            json!(got.status),
            response["status"],
            "{name}: {}",
            got.body
        );
        for noun in ["software_config", "software_deployment"] {
            if let (Some(recorded), Some(id)) = (
                response["body"][noun]["id"].as_str(),
                got.body[noun]["id"].as_str(),
            ) {
                self.ids
                    .entry(recorded.to_owned())
                    .or_insert_with(|| id.to_owned());
            }
        }
        let want: Value =
            serde_json::from_str(&self.to_sandbox_ids(&response["body"].to_string())).unwrap();
        assert_eq!(without_times(&got.body), without_times(&want), "{name}");
        for (header, value) in response["headers"].as_object().unwrap() {
            let (got, want) = (got.header(&header.to_lowercase()), value.as_str().unwrap());
            match header.as_str() {
                // Specific to the recording server.
                "Content-Length" | "Connection" => {}
                "X-Openstack-Request-Id" => assert_eq!(got.len(), want.len(), "{name}"),
                "Www-Authenticate" => {
                    assert!(got.starts_with("Keystone uri=\"http://"), "{name}: {got}")
                }
                _ => assert_eq!(got, want, "{name}: {header}"),
            }
        }
    }
}

/// Formats a value without its times, with the members in order.
fn without_times(value: &Value) -> String {
    fn walk(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(members) => {
                for (name, member) in members {
                    match name.as_str() {
                        "creation_time" | "updated_time" => {
                            assert_eq!(
                                member.as_str().map(str::len),
                                Some("2026-11-21T02:31:11Z".len())
                            );
                            *member = json!("T");
                        }
                        _ => walk(member),
                    }
                }
            }
            _ => {}
        }
    }
    let mut value = value.clone();
    walk(&mut value);
    value.to_string()
}

#[tokio::test]
async fn heat_responses_equal_recordings() {
    let mut run = Replayer::new().await;
    let mut replayed: BTreeSet<String> =
        MADE_BY_STACK.iter().map(|name| name.to_string()).collect();
    for line in RECORDED_RUN.lines().filter(|line| !line.is_empty()) {
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["make", noun, id] => run.make(noun, id).await,
            ["put", id, body] => {
                let path =
                    run.to_sandbox_ids(&format!("/v1/{PROJECT_ID}/software_deployments/{id}"));
                let body = serde_json::from_str(body).unwrap();
                let put = run
                    .sandbox
                    .call(&run.tokens["demo"], "PUT", &path, body)
                    .await;
                assert_eq!(put.status, 200, "{line}");
            }
            _ => {
                run.replay(line).await;
                replayed.insert(line.to_owned());
            }
        }
    }
    let recorded: BTreeSet<String> = std::fs::read_dir(Path::new(FIXTURES).join("heat"))
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".json")
                .map(str::to_owned)
        })
        .filter(|name| {
            ["software_", "auth.heat."]
                .iter()
                .any(|start| name.starts_with(start))
        })
        .collect();
    assert_eq!(recorded, replayed, "every recording is replayed");
}

/// Reduces a value to members and types; texts, ids and the order of roles differ.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), shape(member)))
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(text) if text.ends_with(".000000Z") => json!(text.len()),
        Value::String(_) => json!("text"),
        other => other.clone(),
    }
}

#[tokio::test]
async fn keystone_responses_equal_recordings() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let mut replayed = 0;
    for entry in std::fs::read_dir(Path::new(FIXTURES).join("heat")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("auth.tokens.") {
            continue;
        }
        let fixture = read(&format!("heat/{name}"));
        let (request, response) = (&fixture["request"], &fixture["response"]);
        let secret = if name.contains("credential") {
            APPLICATION_CREDENTIAL_SECRET
        } else {
            PASSWORD
        };
        let body = match &request["body"] {
            Value::String(text) => text.clone(),
            body => body.to_string().replace("SECRET", secret),
        };
        let got = sandbox
            .send("POST", request["path"].as_str().unwrap(), &[], Some(&body))
            .await;
        assert_eq!(
            json!(got.status),
            response["status"],
            "{name}: {}",
            got.body
        );
        match got.status {
            201 => assert_eq!(shape(&got.body), shape(&response["body"]), "{name}"),
            _ => assert_eq!(got.body, response["body"], "{name}"),
        }
        for header in response["headers"].as_object().unwrap().keys() {
            let header = header.to_lowercase();
            assert!(
                header == "content-length" || got.headers.contains_key(&header),
                "{name}: {header}"
            );
        }
        assert!(
            !got.body.to_string().contains(secret) || secret == USERNAME,
            "{name}"
        );
        replayed += 1;
    }
    assert_eq!(replayed, 7);
}
