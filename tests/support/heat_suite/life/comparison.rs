//! Comparisons of each read-only operation with plain REST.

use serde_json::{Value, json};
use tonic::Code;

use super::{MOVED, NESTED, STACK_READS, Suite, TEMPLATE};
use crate::support::client::json as to_json;

impl Suite {
    /// Compares the reads of a stack in any state.
    pub(super) async fn reads(&mut self, id: &str) {
        let at = format!("/stacks/{}/{id}", self.name);
        let none = json!({"stack_name": self.name});
        self.both("StackService/GetStack", none.clone(), &at).await;
        for (rpc, path, field) in STACK_READS {
            self.both_by(
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
        self.both(
            "StackResourceService/ListStackResources",
            deep,
            &format!("{at}/resources?nested_depth=2&with_detail=true"),
        )
        .await;
        for key in ["text", "list"] {
            self.both(
                "StackOutputService/GetStackOutput",
                json!({"stack_name": self.name, "output_key": key}),
                &format!("{at}/outputs/{key}"),
            )
            .await;
        }
    }

    /// Compares each read-only operation on a complete stack.
    pub(super) async fn compare(&mut self, id: &str) {
        let name = self.name.clone();
        let at = format!("/stacks/{name}/{id}");
        let of = |more: Value| {
            let mut request = more;
            request["stack_name"] = json!(name);
            request
        };
        let none = || of(json!({}));
        self.both_by(
            "GET",
            "MetaService/ListApiVersions",
            json!({}),
            "//",
            None,
            None,
        )
        .await;
        self.both("MetaService/GetBuildInfo", json!({}), "/build_info")
            .await;
        self.both("StackService/ListStacks", json!({}), "/stacks")
            .await;
        self.both("StackService/ListStacks", json!({"page_size": 1, "with_count": true, "show_nested": true, "sort_keys": ["stack_name"], "sort_dir": "SORT_DIRECTION_DESC"}), "/stacks?limit=1&sort_keys=stack_name&sort_dir=desc&show_nested=true&with_count=true").await;
        self.both("StackService/ListStackDetails", json!({}), "/stacks/detail")
            .await;
        self.both("StackService/GetStack", none(), &at).await;
        self.both(
            "StackService/GetStack",
            of(json!({"resolve_outputs": false})),
            &format!("{at}?resolve_outputs=false"),
        )
        .await;
        for (rpc, path, field) in STACK_READS {
            self.both_by("GET", rpc, none(), &format!("{at}/{path}"), None, field)
                .await;
        }
        for key in ["text", "list"] {
            self.both(
                "StackOutputService/GetStackOutput",
                of(json!({"output_key": key})),
                &format!("{at}/outputs/{key}"),
            )
            .await;
        }
        let preview = json!({"parameters": {"n": 13}});
        let body = Some(preview.clone());
        self.both_by(
            "PATCH",
            "StackService/PreviewStackPatch",
            of(preview),
            &format!("{at}/preview"),
            body,
            None,
        )
        .await;
        // With a complete template, with nested stacks, and with fewer resources.
        let less = json!({"template": MOVED, "parameters": {"n": 13}});
        let whole = json!({"template": TEMPLATE, "files": {"nested.yaml": NESTED}});
        for (body, nested) in [(&less, false), (&whole, false), (&whole, true)] {
            let mut asked = of(body.clone());
            asked["show_nested"] = json!(nested);
            let changes = self
                .both_by(
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
        self.both(
            "StackResourceService/ListStackResources",
            of(json!({"nested_depth": 2, "with_detail": true})),
            &format!("{at}/resources?nested_depth=2&with_detail=true"),
        )
        .await;
        for resource in ["rnd", "val", "cfg", "dep", "wait", "none", "test", "below"] {
            let one = of(json!({"resource_name": resource}));
            self.both(
                "StackResourceService/GetStackResource",
                one.clone(),
                &format!("{at}/resources/{resource}"),
            )
            .await;
            self.both(
                "StackResourceService/GetStackResourceMetadata",
                one.clone(),
                &format!("{at}/resources/{resource}/metadata"),
            )
            .await;
            let events = self
                .both(
                    "StackEventService/ListResourceEvents",
                    one.clone(),
                    &format!("{at}/resources/{resource}/events"),
                )
                .await;
            let event = events["events"][0]["id"].as_str().unwrap().to_owned();
            let mut one = one;
            one["event_id"] = json!(event);
            self.both(
                "StackEventService/GetEvent",
                one,
                &format!("{at}/resources/{resource}/events/{event}"),
            )
            .await;
        }
        self.both(
            "StackEventService/ListStackEvents",
            of(json!({"page_size": 3, "sort_dir": "SORT_DIRECTION_ASC", "nested_depth": 2})),
            &format!("{at}/events?limit=3&sort_dir=asc&nested_depth=2"),
        )
        .await;
        self.both(
            "ResourceTypeService/ListResourceTypes",
            json!({}),
            "/resource_types",
        )
        .await;
        self.both(
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
            self.both(
                "ResourceTypeService/GetResourceTypeSchema",
                of.clone(),
                &format!("/resource_types/{kind}"),
            )
            .await;
            self.both_by(
                "GET",
                "ResourceTypeService/GetResourceTypeTemplate",
                of,
                &format!("/resource_types/{kind}/template"),
                None,
                Some("template"),
            )
            .await;
        }
        self.both(
            "TemplateService/ListTemplateVersions",
            json!({}),
            "/template_versions",
        )
        .await;
        let version = "heat_template_version.2018-08-31";
        self.both(
            "TemplateService/ListTemplateFunctions",
            json!({"template_version": version, "with_condition_func": true}),
            &format!("/template_versions/{version}/functions?with_condition_func=true"),
        )
        .await;
        let check = json!({"template": TEMPLATE, "files": {"nested.yaml": NESTED}});
        let mut asked = check.clone();
        asked["show_nested"] = json!(true);
        self.both_by(
            "POST",
            "TemplateService/ValidateTemplate",
            asked,
            "/validate?show_nested=true",
            Some(check),
            None,
        )
        .await;
        self.both(
            "SoftwareConfigService/ListSoftwareConfigs",
            json!({}),
            "/software_configs",
        )
        .await;
        self.both(
            "SoftwareDeploymentService/ListSoftwareDeployments",
            json!({"server_id": "drawbridge-life"}),
            "/software_deployments?server_id=drawbridge-life",
        )
        .await;
        self.both(
            "SoftwareDeploymentService/ListServerDeploymentMetadata",
            json!({"server_id": "drawbridge-life"}),
            "/software_deployments/metadata/drawbridge-life",
        )
        .await;
        self.both_fail(
            "StackService/ExportStack",
            none(),
            "GET",
            &format!("{at}/export"),
            Code::Unimplemented,
        )
        .await;
        self.both_fail(
            "StackService/AbandonStack",
            none(),
            "DELETE",
            &format!("{at}/abandon"),
            Code::Unimplemented,
        )
        .await;
        self.both_fail(
            "MetaService/ListServices",
            json!({}),
            "GET",
            "/services",
            Code::PermissionDenied,
        )
        .await;
        self.both_fail(
            "StackOutputService/GetStackOutput",
            of(json!({"output_key": "no"})),
            "GET",
            &format!("{at}/outputs/no"),
            Code::NotFound,
        )
        .await;
        // Id and ARN name the same stack.
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
            self.both(
                "StackOutputService/ListStackOutputs",
                json!({"stack_name": identity}),
                &format!("{at}/outputs"),
            )
            .await;
        }
    }

    pub(super) async fn snapshots(&mut self, id: &str, snapshot: &str) {
        let at = format!("/stacks/{}/{id}/snapshots", self.name);
        let of = json!({"stack_name": self.name, "snapshot_id": snapshot});
        self.both(
            "StackSnapshotService/GetStackSnapshot",
            of,
            &format!("{at}/{snapshot}"),
        )
        .await;
        let of = json!({"stack_name": self.name});
        self.both("StackSnapshotService/ListStackSnapshots", of, &at)
            .await;
    }

    /// Compares the events of all pages with Heat's complete list.
    pub(super) async fn events(&mut self, id: &str) {
        let at = format!(
            "/stacks/{}/{id}/events?sort_dir=asc&nested_depth=3",
            self.name
        );
        let all = self.rest.get(&at).await;
        let want: Vec<&str> = all["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        let request = json!({"stack_name": self.name, "page_size": 7, "nested_depth": 3,
            "sort_dir": "SORT_DIRECTION_ASC"});
        let mut stream = self
            .gateway
            .client
            .watch("StackEventService/StreamStackEvents", request, &[])
            .await
            .unwrap();
        let mut got = Vec::new();
        while let Some(event) = stream.next().await {
            let event = to_json(&event.unwrap());
            got.push(event["event"]["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(got, want);
        assert!(got.len() > 40, "{}", got.len());
    }
}
