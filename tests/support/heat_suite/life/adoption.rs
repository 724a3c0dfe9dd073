//! Export, abandon and adoption of a stack.

use serde_json::json;
use tonic::Code;

use super::{MOVED, Suite};

impl Suite {
    /// Exports and abandons the stack, and adopts it under another name.
    pub(super) async fn adopt(&mut self) {
        let created = self
            .call(
                "StackService/CreateStack",
                json!({"template": MOVED, "parameters": {"n": 12}, "tags": ["blue"]}),
            )
            .await;
        let id = created["stack"]["id"].as_str().unwrap().to_owned();
        self.settled("CREATE_COMPLETE").await;
        let at = format!("/stacks/{}/{id}", self.name);
        let text = self.text().await;
        let exported = self
            .both_by(
                "GET",
                "StackService/ExportStack",
                json!({"stack_name": self.name}),
                &format!("{at}/export"),
                None,
                Some("data"),
            )
            .await;
        let abandoned = self.call("StackService/AbandonStack", json!({})).await;
        assert_eq!(abandoned, exported, "nothing has changed in between");
        let of = json!({"stack_name": self.name, "stack_id": id});
        self.gone(&of).await;
        self.both("StackService/GetStack", of, &at).await;

        // Its resources still exist, and are adopted unchanged.
        self.name += "-again";
        let data = &abandoned["data"];
        let adopted = self
            .call(
                "StackService/AdoptStack",
                json!({"adopt_stack_data": data, "parameters": {"n": 12}}),
            )
            .await;
        let id = adopted["stack"]["id"].as_str().unwrap().to_owned();
        self.settled("ADOPT_COMPLETE").await;
        assert_eq!(self.text().await, text);
        let got = self
            .both(
                "StackResourceService/ListStackResources",
                json!({"stack_name": self.name}),
                &format!("/stacks/{}/{id}/resources", self.name),
            )
            .await;
        let resources = got["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 4);
        for resource in resources {
            let name = resource["resource_name"].as_str().unwrap();
            assert_eq!(
                resource["physical_resource_id"], data["resources"][name]["resource_id"],
                "{name}"
            );
            assert_eq!(resource["resource_status_raw"], "ADOPT_COMPLETE", "{name}");
        }
        self.both(
            "StackEventService/ListStackEvents",
            json!({"stack_name": self.name}),
            &format!("/stacks/{}/{id}/events", self.name),
        )
        .await;
        // Invalid data is rejected with Heat's own message.
        for data in [json!({}), json!({"template": {}})] {
            let body = json!({"stack_name": "none", "adopt_stack_data": data.to_string()});
            self.both_fail_by(
                "StackService/AdoptStack",
                json!({"stack_name": "none", "adopt_stack_data": data}),
                "POST",
                "/stacks",
                Some(body),
                Code::InvalidArgument,
            )
            .await;
        }
        self.call("StackService/DeleteStack", json!({})).await;
        self.gone(&json!({"stack_name": self.name, "stack_id": id}))
            .await;
    }
}
