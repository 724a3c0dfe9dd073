//! REST bodies: a deployment as recorded, and lists of it.

/// Returns one deployment of about 650 bytes.
pub fn deployment() -> String {
    let value = serde_json::json!({
        "id": "a9c794b3-edd8-418a-b2b6-11c5398f7068",
        "server_id": "a61842cd-668b-4675-a826-aa3438a96e03",
        "input_values": {"port": 80, "tls": false, "hosts": ["a.example", "b.example"]},
        "output_values": {
            "deploy_stdout": "Writing to /tmp/barmy\nWritten to /tmp/barmy\n",
            "deploy_stderr": "+ echo Writing to /tmp/barmy\n+ echo fu\n",
            "deploy_status_code": 0,
            "result": "The file /tmp/barmy contains fu for server",
            "ratio": 1.5,
            "nothing": null
        },
        "action": "CREATE",
        "status": "COMPLETE",
        "status_reason": "Outputs received",
        "config_id": "c71455e5-6e81-4f9c-9728-3e9505f64cf3",
        "creation_time": "2026-11-21T02:31:11Z",
        "updated_time": "2026-11-21T02:31:13Z"
    });
    value.to_string()
}

/// `{"software_deployment": ...}`.
pub fn one() -> String {
    format!(r#"{{"software_deployment": {}}}"#, deployment())
}

/// Returns `{"software_deployments": [...]}` with `n` deployments.
pub fn many(n: usize) -> String {
    format!(
        r#"{{"software_deployments": [{}]}}"#,
        vec![deployment(); n].join(", ")
    )
}
