//! Comparison of reads and errors through the gateway with those of REST calls directly to
//! Heat.

use serde_json::{Value, json};
use tonic::Code;

use super::{ADOPTED_TEMPLATE, NESTED_TEMPLATE, Suite, TEMPLATE};
use crate::support::client::json as to_json;
use crate::support::compare::differences;

/// Reads of one stack: rpc, path below the stack, and the field that holds a body without
/// an envelope.
const STACK_READS: [(&str, &str, Option<&str>); 7] = [
    (
        "StackService/GetStackTemplate",
        "template",
        Some("template"),
    ),
    ("StackService/GetStackEnvironment", "environment", None),
    ("StackService/GetStackFiles", "files", Some("files")),
    ("StackOutputService/ListStackOutputs", "outputs", None),
    ("StackSnapshotService/ListStackSnapshots", "snapshots", None),
    ("StackResourceService/ListStackResources", "resources", None),
    ("StackEventService/ListStackEvents", "events", None),
];

impl Suite {
    /// Compares the response of an rpc with that of a GET.
    pub(super) async fn compare(&mut self, rpc: &str, request: Value, path: &str) -> Value {
        self.compare_body("GET", rpc, request, path, None, None)
            .await
    }

    pub(super) async fn compare_body(
        &mut self,
        verb: &str,
        rpc: &str,
        request: Value,
        path: &str,
        body: Option<Value>,
        body_field: Option<&str>,
    ) -> Value {
        let got = self
            .gateway
            .client
            .call(rpc, request)
            .await
            .unwrap_or_else(|e| panic!("{rpc}: {e:?}"));
        let body = body.map(|body| body.to_string());
        let (status, _, want) = self.rest.send(verb, path, body.as_deref()).await;
        assert!(status < 301, "{path}: {status} {want}");
        let want = match body_field {
            Some(field) => json!({field: want}),
            None => want,
        };
        assert_eq!(differences(&got, &want), Vec::<String>::new(), "{rpc}");
        self.compared.insert(rpc.to_owned());
        to_json(&got)
    }

    /// Compares the error of an rpc with that of a REST call.
    pub(super) async fn compare_error(
        &mut self,
        rpc: &str,
        request: Value,
        verb: &str,
        path: &str,
        code: Code,
    ) {
        self.compare_error_body(rpc, request, verb, path, None, code)
            .await;
    }

    pub(super) async fn compare_error_body(
        &mut self,
        rpc: &str,
        request: Value,
        verb: &str,
        path: &str,
        body: Option<Value>,
        code: Code,
    ) {
        let status = self.gateway.client.call(rpc, request).await.err();
        let status = status.unwrap_or_else(|| panic!("{rpc} did not fail"));
        let body = body.map(|body| body.to_string());
        let (http, _, body) = self.rest.send(verb, path, body.as_deref()).await;
        assert!(http >= 400, "{path}: {http}");
        assert_eq!(status.code(), code, "{rpc}: {status:?}");
        if let Some(message) = body["error"]["message"].as_str() {
            assert_eq!(
                status.message().split(" (").next(),
                message.split(" (").next(),
                "{rpc}"
            );
        }
        self.compared.insert(rpc.to_owned());
    }

    /// Compares the reads of the stack that are possible in every state.
    pub(super) async fn compare_stack(&mut self, id: &str) {
        let at = format!("/stacks/{}/{id}", self.name);
        let none = json!({"stack_name": self.name});
        self.compare("StackService/GetStack", none.clone(), &at)
            .await;
        for (rpc, path, field) in STACK_READS {
            self.compare_body(
                "GET",
                rpc,
                none.clone(),
                &format!("{at}/{path}"),
                None,
                field,
            )
            .await;
        }
        let deep = json!({"stack_name": self.name, "nested_depth": 2, "with_detail": true});
        self.compare(
            "StackResourceService/ListStackResources",
            deep,
            &format!("{at}/resources?nested_depth=2&with_detail=true"),
        )
        .await;
        for key in ["text", "list"] {
            self.compare(
                "StackOutputService/GetStackOutput",
                json!({"stack_name": self.name, "output_key": key}),
                &format!("{at}/outputs/{key}"),
            )
            .await;
        }
    }

    /// Compares all reads of a complete stack.
    pub(super) async fn compare_all_reads(&mut self, id: &str) {
        let name = self.name.clone();
        let at = format!("/stacks/{name}/{id}");
        let of = |more: Value| {
            let mut request = more;
            request["stack_name"] = json!(name);
            request
        };
        let none = || of(json!({}));
        self.compare_body(
            "GET",
            "MetaService/ListApiVersions",
            json!({}),
            "//",
            None,
            None,
        )
        .await;
        self.compare("MetaService/GetBuildInfo", json!({}), "/build_info")
            .await;
        self.compare("StackService/ListStacks", json!({}), "/stacks")
            .await;
        self.compare("StackService/ListStacks", json!({"page_size": 1, "with_count": true, "show_nested": true, "sort_keys": ["stack_name"], "sort_dir": "SORT_DIRECTION_DESC"}), "/stacks?limit=1&sort_keys=stack_name&sort_dir=desc&show_nested=true&with_count=true").await;
        self.compare("StackService/ListStackDetails", json!({}), "/stacks/detail")
            .await;
        self.compare("StackService/GetStack", none(), &at).await;
        self.compare(
            "StackService/GetStack",
            of(json!({"resolve_outputs": false})),
            &format!("{at}?resolve_outputs=false"),
        )
        .await;
        for (rpc, path, field) in STACK_READS {
            self.compare_body("GET", rpc, none(), &format!("{at}/{path}"), None, field)
                .await;
        }
        for key in ["text", "list"] {
            self.compare(
                "StackOutputService/GetStackOutput",
                of(json!({"output_key": key})),
                &format!("{at}/outputs/{key}"),
            )
            .await;
        }
        let preview = json!({"parameters": {"n": 13}});
        let body = Some(preview.clone());
        self.compare_body(
            "PATCH",
            "StackService/PreviewStackPatch",
            of(preview),
            &format!("{at}/preview"),
            body,
            None,
        )
        .await;
        // With a template, with nested stacks, and with fewer resources.
        let less = json!({"template": ADOPTED_TEMPLATE, "parameters": {"n": 13}});
        let whole = json!({"template": TEMPLATE, "files": {"nested.yaml": NESTED_TEMPLATE}});
        for (body, nested) in [(&less, false), (&whole, false), (&whole, true)] {
            let mut asked = of(body.clone());
            asked["show_nested"] = json!(nested);
            let changes = self
                .compare_body(
                    "PUT",
                    "StackService/PreviewStackUpdate",
                    asked,
                    &format!("{at}/preview?show_nested={nested}"),
                    Some(body.clone()),
                    None,
                )
                .await;
            assert!(changes["resource_changes"].is_object(), "{changes}");
        }
        self.compare(
            "StackResourceService/ListStackResources",
            of(json!({"nested_depth": 2, "with_detail": true})),
            &format!("{at}/resources?nested_depth=2&with_detail=true"),
        )
        .await;
        for resource in ["rnd", "val", "cfg", "dep", "wait", "none", "test", "below"] {
            let one = of(json!({"resource_name": resource}));
            self.compare(
                "StackResourceService/GetStackResource",
                one.clone(),
                &format!("{at}/resources/{resource}"),
            )
            .await;
            self.compare(
                "StackResourceService/GetStackResourceMetadata",
                one.clone(),
                &format!("{at}/resources/{resource}/metadata"),
            )
            .await;
            let events = self
                .compare(
                    "StackEventService/ListResourceEvents",
                    one.clone(),
                    &format!("{at}/resources/{resource}/events"),
                )
                .await;
            let event = events["events"][0]["id"].as_str().unwrap().to_owned();
            let mut one = one;
            one["event_id"] = json!(event);
            self.compare(
                "StackEventService/GetEvent",
                one,
                &format!("{at}/resources/{resource}/events/{event}"),
            )
            .await;
        }
        self.compare(
            "StackEventService/ListStackEvents",
            of(json!({"page_size": 3, "sort_dir": "SORT_DIRECTION_ASC", "nested_depth": 2})),
            &format!("{at}/events?limit=3&sort_dir=asc&nested_depth=2"),
        )
        .await;
        self.compare(
            "ResourceTypeService/ListResourceTypes",
            json!({}),
            "/resource_types",
        )
        .await;
        self.compare(
            "ResourceTypeService/ListResourceTypes",
            json!({"name": "OS::Heat", "with_description": true}),
            "/resource_types?name=OS::Heat&with_description=true",
        )
        .await;
        for kind in [
            "OS::Heat::RandomString",
            "OS::Heat::ResourceGroup",
            "OS::Nova::Server",
        ] {
            let of = json!({"type_name": kind});
            let (status, _, _) = self
                .rest
                .send("GET", &format!("/resource_types/{kind}"), None)
                .await;
            if status != 200 {
                continue;
            }
            self.compare(
                "ResourceTypeService/GetResourceTypeSchema",
                of.clone(),
                &format!("/resource_types/{kind}"),
            )
            .await;
            self.compare_body(
                "GET",
                "ResourceTypeService/GetResourceTypeTemplate",
                of,
                &format!("/resource_types/{kind}/template"),
                None,
                Some("template"),
            )
            .await;
        }
        self.compare(
            "TemplateService/ListTemplateVersions",
            json!({}),
            "/template_versions",
        )
        .await;
        let version = "heat_template_version.2018-08-31";
        self.compare(
            "TemplateService/ListTemplateFunctions",
            json!({"template_version": version, "with_condition_func": true}),
            &format!("/template_versions/{version}/functions?with_condition_func=true"),
        )
        .await;
        let check = json!({"template": TEMPLATE, "files": {"nested.yaml": NESTED_TEMPLATE}});
        let mut asked = check.clone();
        asked["show_nested"] = json!(true);
        self.compare_body(
            "POST",
            "TemplateService/ValidateTemplate",
            asked,
            "/validate?show_nested=true",
            Some(check),
            None,
        )
        .await;
        self.compare(
            "SoftwareConfigService/ListSoftwareConfigs",
            json!({}),
            "/software_configs",
        )
        .await;
        self.compare(
            "SoftwareDeploymentService/ListSoftwareDeployments",
            json!({"server_id": "drawbridge-life"}),
            "/software_deployments?server_id=drawbridge-life",
        )
        .await;
        self.compare(
            "SoftwareDeploymentService/ListServerDeploymentMetadata",
            json!({"server_id": "drawbridge-life"}),
            "/software_deployments/metadata/drawbridge-life",
        )
        .await;
        self.compare_error(
            "StackService/ExportStack",
            none(),
            "GET",
            &format!("{at}/export"),
            Code::Unimplemented,
        )
        .await;
        self.compare_error(
            "StackService/AbandonStack",
            none(),
            "DELETE",
            &format!("{at}/abandon"),
            Code::Unimplemented,
        )
        .await;
        self.compare_error(
            "MetaService/ListServices",
            json!({}),
            "GET",
            "/services",
            Code::PermissionDenied,
        )
        .await;
        self.compare_error(
            "StackOutputService/GetStackOutput",
            of(json!({"output_key": "no"})),
            "GET",
            &format!("{at}/outputs/no"),
            Code::NotFound,
        )
        .await;
        // The id and the ARN identify the same stack.
        for identity in [
            id.to_owned(),
            format!(
                "arn:openstack:heat::{}:stacks/{name}/{id}",
                self.rest.project
            ),
        ] {
            let found = self
                .call("StackService/FindStack", json!({"identity": identity}))
                .await;
            assert_eq!(found, json!({"stack_name": name, "stack_id": id}));
            self.compare(
                "StackOutputService/ListStackOutputs",
                json!({"stack_name": identity}),
                &format!("{at}/outputs"),
            )
            .await;
        }
    }

    pub(super) async fn compare_snapshots(&mut self, id: &str, snapshot: &str) {
        let at = format!("/stacks/{}/{id}/snapshots", self.name);
        let of = json!({"stack_name": self.name, "snapshot_id": snapshot});
        self.compare(
            "StackSnapshotService/GetStackSnapshot",
            of,
            &format!("{at}/{snapshot}"),
        )
        .await;
        let of = json!({"stack_name": self.name});
        self.compare("StackSnapshotService/ListStackSnapshots", of, &at)
            .await;
    }
}
