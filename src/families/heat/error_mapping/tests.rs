use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::families::error_body::tests::{recorded, reply};

const READ: FaultContext<'static> = FaultContext {
    dialect: "openstack",
    rpc: "GetStack",
    dialect_optional: false,
    idempotency: Idempotency::NoSideEffects,
};
const WRITE: FaultContext<'static> = FaultContext {
    rpc: "CreateStack",
    idempotency: Idempotency::NonIdempotent,
    ..READ
};

/// The recorded error exchanges by code and reason. A new recording must be added.
#[rustfmt::skip]
const EXPECTED: &[(&str, &[&str])] = &[
    ("Aborted ActionInProgress", &["stacks.snapshot.create.action_in_progress"]),
    ("AlreadyExists StackExists", &["stacks.create.duplicate_name"]),
    ("FailedPrecondition HTTP_302", &[
        "stacks.lookup.arn_encoded", "stacks.lookup.by_id", "stacks.lookup.by_name",
        "stacks.lookup.by_name.subpath", "stacks.lookup.by_name.template",
        "stacks.lookup.deleted_name", "stacks.lookup.post_by_name",
    ]),
    ("FailedPrecondition NotSupported", &[
        "stacks.actions.cancel_update.nothing", "stacks.actions.cancel_update.while_creating",
        "stacks.update.suspended",
    ]),
    ("Internal KeyError", &["resource_types.template.server_error"]),
    ("Internal RemoteError", &[
        "auth.heat.application_credential.create_stack",
        "software_deployments.create.no_server",
    ]),
    ("InvalidArgument BadRequest", &["auth.tokens.empty", "auth.tokens.malformed"]),
    ("InvalidArgument CircularDependencyException", &["validate.circular"]),
    ("InvalidArgument HTTPBadRequest", &[
        "events.list.limit_bad", "resource_types.template.bad_type",
        "resources.list.nested_depth_bad", "resources.mark_unhealthy.missing",
        "resources.signal.malformed_json", "software_configs.create.inputs_not_list",
        "software_configs.create.malformed_json", "software_configs.create.no_body",
        "software_configs.list.limit_bad", "software_configs.list.limit_negative",
        "software_deployments.create.not_an_object",
        "software_deployments.update.malformed_json", "software_deployments.update.no_body",
        "stacks.actions.none", "stacks.actions.two", "stacks.actions.unknown",
        "stacks.create.bad_tag", "stacks.create.bad_timeout", "stacks.create.malformed_json",
        "stacks.create.no_body", "stacks.create.not_an_object", "stacks.list.limit_bad",
        "stacks.update.malformed_json", "stacks.update.no_template", "validate.bad_yaml",
        "validate.malformed_json", "validate.missing_template", "validate.unknown_type",
    ]),
    ("InvalidArgument InvalidTemplateReference", &["stacks.create.bad_reference"]),
    ("InvalidArgument InvalidTemplateVersion", &["validate.bad_version", "validate.no_version"]),
    ("InvalidArgument StackValidationFailed", &[
        "stacks.create.bad_name", "stacks.create.constraint",
        "stacks.create.property_out_of_range", "stacks.create.unknown_property",
        "stacks.create.unknown_resource_type",
    ]),
    ("InvalidArgument UnknownUserParameter", &["stacks.create.unknown_parameter"]),
    ("InvalidArgument UserParameterMissing", &["stacks.create.missing_parameter"]),
    ("InvalidArgument ValueError", &[
        "events.list.sort_bad", "software_configs.create.input_default_mismatch",
        "software_configs.create.input_without_name", "stacks.create.bad_disable_rollback",
    ]),
    ("NotFound EntityNotFound", &[
        "resource_types.show.unknown", "stacks.delete.other_project", "stacks.delete.unknown",
        "stacks.lookup.delete_by_name", "stacks.lookup.unknown", "stacks.show.other_project",
        "stacks.show.unknown_id", "stacks.update.unknown",
    ]),
    ("NotFound HTTPNotFound", &["events.list.resource_unknown", "events.show.unknown"]),
    ("NotFound HTTP_404", &["routes.unknown", "software_configs.show.trailing_slash"]),
    ("NotFound NotFound", &[
        "auth.tokens.application_credential.unknown", "software_configs.delete.twice",
        "software_configs.delete.unknown", "software_configs.show.not_a_uuid",
        "software_configs.show.other_project", "software_configs.show.unknown",
        "software_deployments.create.empty_object",
        "software_deployments.create.unknown_config", "software_deployments.delete.unknown",
        "software_deployments.metadata.no_server", "software_deployments.show.deleted",
        "software_deployments.show.other_project", "software_deployments.show.unknown",
        "software_deployments.update.config_unknown",
        "software_deployments.update.other_project", "software_deployments.update.unknown",
        "stacks.outputs.show.unknown", "stacks.snapshot.delete.twice",
        "stacks.snapshot.restore.unknown", "stacks.snapshot.show.unknown",
        "template_functions.unknown",
    ]),
    ("NotFound ResourceNotFound", &["resources.show.unknown", "resources.signal.unknown_resource"]),
    ("PermissionDenied Forbidden", &[
        "auth.heat.reader.create_software_config",
        "auth.heat.reader.create_software_deployment", "auth.heat.reader.create_stack",
        "services.list.forbidden", "software_configs.list.global_tenant.forbidden",
        "stacks.list.global_tenant.forbidden",
    ]),
    ("PermissionDenied HTTPForbidden", &[
        "auth.heat.other_project_path", "auth.heat.unknown_project_path",
    ]),
    ("ResourceExhausted RequestLimitExceeded", &[
        "software_configs.create.oversize", "stacks.create.request_too_large",
        "stacks.create.template_too_large",
    ]),
    ("Unauthenticated Unauthorized", &[
        "auth.heat.bad_token", "auth.heat.bad_token.post", "auth.heat.missing_token",
        "auth.heat.token.expired", "auth.heat.token.expired.post", "auth.tokens.password.wrong",
        "versions.v1",
    ]),
    ("Unimplemented HTTPMethodNotAllowed", &[
        "software_configs.collection.method_not_allowed",
        "software_configs.update.method_not_allowed",
        "software_deployments.update.patch_not_allowed",
        "software_deployments.update.post_not_allowed",
    ]),
    ("Unimplemented NotSupported", &["stacks.abandon.disabled", "stacks.export.disabled"]),
];

#[test]
fn recorded_errors_have_the_expected_code_and_reason() {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/heat");
    for entry in fs::read_dir(folder).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a text");
        let exchange: Value = serde_json::from_str(&text).expect("an exchange");
        let status = exchange["response"]["status"].as_u64().expect("a status");
        if status < 300 {
            continue;
        }
        let context = match exchange["request"]["method"].as_str() {
            Some("GET") => READ,
            _ => WRITE,
        };
        let reply = recorded(&exchange["response"]);
        let fault = fault(&context, &reply);
        let name = path.file_stem().expect("a name").to_string_lossy();
        assert_eq!(u64::from(fault.http_status), status, "{name}");
        assert_eq!(fault.domain, "heat", "{name}");
        let of_heat = exchange["response"]["headers"]["X-Openstack-Request-Id"].as_str();
        assert_eq!(fault.request_id.as_deref(), of_heat, "{name}");
        assert!(!fault.message.is_empty(), "{name}: no message");
        // Heat's own message may contain `<unicode string>`, but no HTML.
        for tag in ["<html", "<br", "<h1", "</"] {
            assert!(!fault.message.contains(tag), "{name}: {}", fault.message);
        }
        assert!(
            !fault.message.contains("18004"),
            "{name}: {}",
            fault.message
        );
        assert_eq!(fault.credential_rejected, status == 401, "{name}");
        assert!(!fault.transient && !fault.not_processed, "{name}");
        let key = format!("{:?} {}", fault.code, fault.reason);
        seen.entry(key).or_default().push(name.into_owned());
    }
    for names in seen.values_mut() {
        names.sort();
    }
    let seen: Vec<(&str, Vec<&str>)> = seen
        .iter()
        .map(|(key, names)| (&**key, names.iter().map(|name| &**name).collect()))
        .collect();
    let expected: Vec<(&str, Vec<&str>)> = EXPECTED
        .iter()
        .map(|(key, names)| (*key, names.to_vec()))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn class_decides_the_code() {
    use Code::*;
    for (status, class, read, write) in [
        (400, "HTTPBadRequest", InvalidArgument, InvalidArgument),
        (400, "Invalid", InvalidArgument, InvalidArgument),
        (400, "UnicodeDecodeError", InvalidArgument, InvalidArgument),
        (
            400,
            "PhysicalResourceIDAmbiguity",
            InvalidArgument,
            InvalidArgument,
        ),
        (400, "ObjectFieldInvalid", InvalidArgument, InvalidArgument),
        (400, "NotSupported", FailedPrecondition, FailedPrecondition),
        (
            400,
            "ResourceActionNotSupported",
            FailedPrecondition,
            FailedPrecondition,
        ),
        (
            400,
            "ResourceTypeUnavailable",
            FailedPrecondition,
            FailedPrecondition,
        ),
        (
            400,
            "MissingCredentialError",
            FailedPrecondition,
            FailedPrecondition,
        ),
        (
            400,
            "RequestLimitExceeded",
            ResourceExhausted,
            ResourceExhausted,
        ),
        (
            400,
            "DownloadLimitExceeded",
            ResourceExhausted,
            ResourceExhausted,
        ),
        (403, "Forbidden", PermissionDenied, PermissionDenied),
        (403, "InvalidTenant", PermissionDenied, PermissionDenied),
        (404, "NotFound", NotFound, NotFound),
        (404, "SnapshotNotFound", NotFound, NotFound),
        (
            404,
            "ResourceNotAvailable",
            FailedPrecondition,
            FailedPrecondition,
        ),
        (405, "HTTPMethodNotAllowed", Unimplemented, Unimplemented),
        (409, "StackExists", AlreadyExists, AlreadyExists),
        (409, "ActionInProgress", Aborted, Aborted),
        (409, "SomethingElse", Aborted, AlreadyExists),
        (
            500,
            "InvalidRestrictedAction",
            FailedPrecondition,
            FailedPrecondition,
        ),
        (
            500,
            "InvalidRestrictedAction_Remote",
            FailedPrecondition,
            FailedPrecondition,
        ),
        (500, "MessageDeliveryFailure", Unavailable, Unavailable),
        (500, "MessagingTimeout", Unavailable, Unknown),
        (500, "RemoteError", Internal, Internal),
        (500, "KeyError", Internal, Internal),
        (500, "EventSendFailed", Internal, Internal),
        (503, "HTTPServiceUnavailable", Unavailable, Unavailable),
        (504, "HTTPGatewayTimeout", Unavailable, Unavailable),
    ] {
        let body = serde_json::json!({
            "code": status, "title": "T", "explanation": "generic",
            "error": {"type": class, "message": "own", "traceback": "File secret.py"},
        });
        let reply = reply(status, &[], body.to_string());
        let (of_read, of_write) = (fault(&READ, &reply), fault(&WRITE, &reply));
        assert_eq!(of_read.code, read, "{class}");
        assert_eq!(of_write.code, write, "{class}");
        assert_eq!(of_read.reason, class.trim_end_matches("_Remote"));
        assert_eq!(of_read.message, "own");
        assert!(!format!("{of_write:?}").contains("secret"));
        let transient = status > 500 || class.starts_with("Messag");
        assert_eq!(of_read.transient, transient, "{class}");
        assert_eq!(of_read.not_processed, class == "MessageDeliveryFailure");
    }
}

#[test]
fn bodies_of_middleware_and_gateways_are_read() {
    use Code::*;
    let rate = [("retry-after", "30")];
    for (status, headers, body, code, reason, message) in [
        (
            401,
            &[][..],
            "<html>\n <body>Authentication required</body></html>",
            Unauthenticated,
            "HTTP_401",
            "Authentication required",
        ),
        (
            503,
            &[],
            "Keystone is down",
            Unavailable,
            "HTTP_503",
            "Keystone is down",
        ),
        (
            401,
            &[],
            r#"{"error_msg":"token expired","error_code":"IAM.0011"}"#,
            Unauthenticated,
            "IAM.0011",
            "token expired",
        ),
        (
            404,
            &[],
            r#"{"itemNotFound":{"code":404,"message":"no such stack"}}"#,
            NotFound,
            "itemNotFound",
            "no such stack",
        ),
        (
            413,
            &rate,
            r#"{"overLimit":{"code":413,"message":"slow down"}}"#,
            ResourceExhausted,
            "overLimit",
            "slow down",
        ),
        (
            422,
            &[],
            r#"{"unprocessableEntity":{"code":422,"message":"m"}}"#,
            FailedPrecondition,
            "unprocessableEntity",
            "m",
        ),
        (415, &[], "", InvalidArgument, "HTTP_415", ""),
        (
            501,
            &[],
            r#"{"notImplemented":{"code":501}}"#,
            Unimplemented,
            "notImplemented",
            "",
        ),
        (429, &rate, "", ResourceExhausted, "HTTP_429", ""),
        (
            502,
            &[],
            "<h1>502 Bad Gateway</h1>",
            Unavailable,
            "HTTP_502",
            "502 Bad Gateway",
        ),
        (500, &[], "", Internal, "HTTP_500", ""),
        (500, &[], "{\"code\": 500, \"ti", Internal, "HTTP_500", ""),
        (
            300,
            &[],
            r#"{"versions":[]}"#,
            FailedPrecondition,
            "HTTP_300",
            "the upstream redirects to another URL",
        ),
    ] {
        let fault = fault(&WRITE, &reply(status, headers, body));
        assert_eq!(fault.code, code, "{body}");
        assert_eq!(fault.reason, reason, "{body}");
        assert_eq!(fault.message, message, "{body}");
        let wait = fault.retry_after.map(|wait| wait.as_secs());
        assert_eq!(wait, (!headers.is_empty()).then_some(30), "{body}");
        assert_eq!(fault.not_processed, status == 429, "{body}");
    }
}

#[test]
fn missing_route_is_unimplemented_if_the_dialect_may_lack_it() {
    let optional = FaultContext {
        dialect_optional: true,
        ..READ
    };
    let router = r#"{"message":"Not there.<br />","code":"404 Not Found","title":"Not Found"}"#;
    let heat = r#"{"code":404,"title":"Not Found","error":{"type":"NotFound","message":"x"}}"#;
    let apigw = r#"{"error_code":"APIGW.0101","error_msg":"no API"}"#;
    for (context, body, code, is_unrelated) in [
        (&optional, router, Code::Unimplemented, true),
        (&optional, apigw, Code::Unimplemented, false),
        (&optional, heat, Code::NotFound, false),
        (&READ, router, Code::NotFound, true),
        (&READ, heat, Code::NotFound, false),
    ] {
        let fault = fault(context, &reply(404, &[], body));
        assert_eq!(
            (fault.code, fault.is_unrelated),
            (code, is_unrelated),
            "{body}"
        );
    }
}

#[test]
fn disabled_feature_is_unimplemented() {
    for (message, code) in [
        ("Stack Abandon is not supported.", Code::Unimplemented),
        ("Stack Adopt is not supported.", Code::Unimplemented),
        (
            "Updating a stack when it is suspended is not supported.",
            Code::FailedPrecondition,
        ),
    ] {
        let body = serde_json::json!({"error": {"type": "NotSupported", "message": message}});
        assert_eq!(fault(&WRITE, &reply(400, &[], body.to_string())).code, code);
    }
}

#[test]
fn deleting_a_used_config_on_rts_is_a_failed_precondition() {
    let body = r#"{"code":500,"explanation":"e","error":{"type":"RemoteError","message":"e"}}"#;
    for (dialect, rpc, want) in [
        ("rts", "DeleteSoftwareConfig", Code::FailedPrecondition),
        ("openstack", "DeleteSoftwareConfig", Code::Internal),
        ("rts", "DeleteSoftwareDeployment", Code::Internal),
    ] {
        let context = FaultContext {
            dialect,
            rpc,
            ..WRITE
        };
        let fault = fault(&context, &reply(500, &[], body));
        assert_eq!(fault.code, want, "{dialect} {rpc}");
        assert_eq!(
            format!("{fault:?}").contains("may still refer"),
            want == Code::FailedPrecondition
        );
    }
}

#[test]
fn hints_add_what_the_message_lacks() {
    let hint = |context: &FaultContext<'_>, reply: &Reply| {
        let fault = fault(context, reply);
        let found = fault.metadata.into_iter().find(|(key, _)| *key == HINT);
        found.map(|(_, hint)| hint).unwrap_or_default()
    };
    let of = |class: &str, status| {
        reply(
            status,
            &[],
            format!(r#"{{"explanation":"e","error":{{"type":"{class}"}}}}"#),
        )
    };
    for (context, reply, want) in [
        (&READ, of("ValueError", 400), "does not say what is wrong"),
        (&READ, of("RemoteError", 500), "its log has the cause"),
        (&READ, of("HTTPForbidden", 403), "the token's own"),
        (
            &READ,
            of("MessagingTimeout", 500),
            "did not respond in time",
        ),
        (&WRITE, of("MessagingTimeout", 500), "may have acted"),
        (&READ, of("NotFound", 404), ""),
        (&READ, reply(300, &[], ""), "end in /v1"),
        (&READ, reply(302, &[], ""), "not followed"),
    ] {
        let got = hint(context, &reply);
        assert!(
            got.contains(want) && got.is_empty() == want.is_empty(),
            "{got}: {want}"
        );
    }
}

#[test]
fn message_of_heat_is_not_read_as_html() {
    let body = serde_json::json!({"code": 400, "title": "Bad Request", "explanation": "x", "error": {
        "type": "HTTPBadRequest",
        "message": "bad\n  in \"<unicode string>\", line 1\nTraceback (most recent call last):\n  File x",
        "traceback": "Traceback (most recent call last): secret",
    }});
    let reply = Reply {
        status: StatusCode::BAD_REQUEST,
        headers: http::HeaderMap::new(),
        body: body.to_string().into(),
    };
    let fault = fault(&READ, &reply);
    assert_eq!(fault.message, "bad\n  in \"<unicode string>\", line 1");
    assert!(!format!("{fault:?}").contains("secret"));
}

#[test]
fn row_deleted_while_heat_reads_is_unavailable() {
    let of = |class: &str, message: &str, context: &FaultContext<'_>| {
        let body = serde_json::json!({"code": 404, "title": "Not Found", "explanation": "x",
            "error": {"type": class, "message": message, "traceback": null}});
        let fault = fault(context, &reply(404, &[], body.to_string()));
        (fault.code, fault.transient)
    };
    let row_deleted = "ResourcePropertiesData with id 227 not found";
    assert_eq!(
        of("NotFound", row_deleted, &READ),
        (Code::Unavailable, true)
    );
    assert_eq!(of("NotFound", row_deleted, &WRITE), (Code::Aborted, true));
    for (class, message) in [
        ("EntityNotFound", row_deleted),
        ("NotFound", "Deployment with id 1 not found"),
    ] {
        assert_eq!(
            of(class, message, &READ),
            (Code::NotFound, false),
            "{class}"
        );
    }
}

#[test]
fn error_bodies_in_a_success_are_recognized() {
    let may_be = || Evidence::MayBeTheResource(&[]);
    for (body, want) in [
        (
            r#"{"code":404,"title":"Not Found","explanation":"x",
                "error":{"type":"EntityNotFound","message":"gone","traceback":null}}"#,
            Some(404),
        ),
        (
            r#"{"code":"404 Not Found","title":"Not Found","message":"m"}"#,
            Some(404),
        ),
        (
            r#"{"error":{"code":401,"title":"Unauthorized","message":"m"}}"#,
            Some(401),
        ),
        (r#"{"itemNotFound":{"code":404,"message":"m"}}"#, Some(404)),
        (r#"{"error_code":"APIGW.0301","error_msg":"m"}"#, Some(500)),
        // The body of a 202 repeats its status.
        (
            r#"{"code":"202 Accepted","title":"Accepted","message":"m"}"#,
            None,
        ),
        // A template.
        (
            r#"{"heat_template_version":"2018-08-31","resources":{}}"#,
            None,
        ),
        (r#"{"resources":{"error":{"code":404}}}"#, None),
        ("{}", None),
    ] {
        for evidence in [Evidence::NotTheResource, may_be()] {
            assert_eq!(error_status(body.as_bytes(), evidence), want, "{body}");
        }
    }
}
