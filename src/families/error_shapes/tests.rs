use super::*;

fn read_text(body: &str) -> ErrorBody {
    read(&serde_json::from_str(body).unwrap())
}

/// Each row: what sends it, the body, reason, message, request id, and the invalid fields as
/// `field=problem`.
#[test]
fn error_bodies_of_common_frameworks_are_read() {
    for (who, body, reason, message, request_id, fields) in [
        (
            "an id in meta",
            r#"{"error":{"code":"E7","message":"m"},"meta":{"request_id":"r7"}}"#,
            "E7",
            "m",
            "r7",
            "",
        ),
        (
            "Elasticsearch",
            r#"{"error":{"root_cause":[{"type":"index_not_found_exception","reason":"no such index [x]"}],
            "type":"index_not_found_exception","reason":"no such index [x]","index":"x"},"status":404}"#,
            "index_not_found_exception",
            "no such index [x]",
            "",
            "",
        ),
        (
            "OData 2",
            r#"{"error":{"code":"SY/530","message":{"lang":"en","value":"Invalid data"},"innererror":{
            "transactionid":"t","errordetails":[{"code":"A","message":"is too long","propertyref":"Name"}]}}}"#,
            "SY/530",
            "Invalid data",
            "",
            "Name=is too long",
        ),
        (
            "Microsoft Graph",
            r#"{"error":{"code":"itemNotFound","message":"no such item","innerError":{"code":"deeper",
            "message":"inner","request-id":"f5a1","date":"2026-01-01"}}}"#,
            "itemNotFound",
            "no such item",
            "f5a1",
            "",
        ),
        (
            "Symfony",
            r#"{"title":"Validation Failed","detail":"name: blank","violations":[
            {"propertyPath":"name","title":"This value should not be blank."}]}"#,
            "",
            "name: blank",
            "",
            "name=This value should not be blank.",
        ),
        (
            "Quarkus",
            r#"{"exception":null,"propertyViolations":[],"classViolations":[],"parameterViolations":[
            {"constraintType":"PARAMETER","path":"create.dto.name","message":"must not be blank","value":""}]}"#,
            "",
            "create.dto.name: must not be blank",
            "",
            "create.dto.name=must not be blank",
        ),
        (
            "webargs",
            r#"{"messages":{"json":{"name":["Missing data for required field."]}}}"#,
            "",
            "json.name: Missing data for required field.",
            "",
            "json.name=Missing data for required field.",
        ),
        (
            "Django, nested",
            r#"{"prefix":["is invalid"],"site":{"name":["is required"]},"items":[{},{"count":["is no integer"]}]}"#,
            "",
            "prefix: is invalid; site.name: is required; items[1].count: is no integer",
            "",
            "prefix=is invalid|site.name=is required|items[1].count=is no integer",
        ),
        (
            "FastAPI",
            r#"{"detail":[{"loc":["body","items",0,"name"],"msg":"field required","type":"value_error.missing"},
            {"loc":["query","limit"],"msg":"not an integer","type":"type_error.integer"}]}"#,
            "",
            "items[0].name: field required; query.limit: not an integer",
            "",
            "items[0].name=field required|query.limit=not an integer",
        ),
        (
            "FastAPI",
            r#"{"detail":"Not authenticated"}"#,
            "",
            "Not authenticated",
            "",
            "",
        ),
        (
            "Rails",
            r#"{"errors":{"name":["can't be blank","is too short"],"base":["is locked"]}}"#,
            "",
            "is locked",
            "",
            "name=can't be blank; is too short",
        ),
        (
            "Rails",
            r#"{"errors":["Name can't be blank"]}"#,
            "",
            "Name can't be blank",
            "",
            "",
        ),
        (
            "Rails",
            r#"{"name":["can't be blank"]}"#,
            "",
            "name: can't be blank",
            "",
            "name=can't be blank",
        ),
        (
            "GitLab",
            r#"{"message":{"name":["has already been taken"]}}"#,
            "",
            "name: has already been taken",
            "",
            "name=has already been taken",
        ),
        (
            "GitLab",
            r#"{"message":["one","two"]}"#,
            "",
            "one; two",
            "",
            "",
        ),
        (
            "GitLab",
            r#"{"error":"insufficient_scope","error_description":"The request requires more"}"#,
            "insufficient_scope",
            "The request requires more",
            "",
            "",
        ),
        (
            "Django",
            r#"{"name":["This field is required."],"items":["Too many."]}"#,
            "",
            "name: This field is required.; items: Too many.",
            "",
            "name=This field is required.|items=Too many.",
        ),
        (
            "Django",
            r#"{"non_field_errors":["Passwords differ."]}"#,
            "",
            "Passwords differ.",
            "",
            "",
        ),
        (
            "Azure, AWS",
            r#"{"Message":"No such thing","Code":"NoSuchThing","RequestId":"r1"}"#,
            "NoSuchThing",
            "No such thing",
            "r1",
            "",
        ),
        (
            "AWS",
            r#"{"__type":"com.amazon.coral#ValidationException","message":"bad"}"#,
            "ValidationException",
            "bad",
            "",
            "",
        ),
        (
            "Apigee",
            r#"{"fault":{"faultstring":"Invalid ApiKey","detail":{"errorcode":"oauth.v2.InvalidApiKey"}}}"#,
            "oauth.v2.InvalidApiKey",
            "Invalid ApiKey",
            "",
            "",
        ),
        (
            "WSO2",
            r#"{"fault":{"code":900902,"message":"Missing Credentials","description":"Give them"}}"#,
            "900902",
            "Missing Credentials",
            "",
            "",
        ),
        (
            "OpenStack",
            r#"{"NeutronError":{"type":"PortInUse","message":"in use","detail":""}}"#,
            "PortInUse",
            "in use",
            "",
            "",
        ),
        (
            "list",
            r#"[{"message":"duplicate","errorCode":"DUPLICATE_VALUE"}]"#,
            "DUPLICATE_VALUE",
            "duplicate",
            "",
            "",
        ),
        (
            "Jira",
            r#"{"errorMessages":["Issue does not exist"],"errors":{}}"#,
            "",
            "Issue does not exist",
            "",
            "",
        ),
        (
            "Jira",
            r#"{"errorMessages":[],"errors":{"summary":"You must specify a summary"}}"#,
            "",
            "summary: You must specify a summary",
            "",
            "summary=You must specify a summary",
        ),
        (
            "Octopus",
            r#"{"ErrorMessage":"There was a problem with your request.","Errors":["Name is required","Id is wrong"]}"#,
            "",
            "There was a problem with your request. Name is required; Id is wrong",
            "",
            "",
        ),
        (
            "JSON:API",
            r#"{"errors":[{"id":"e","status":"422","code":"blank","title":"Invalid","detail":"must not be blank",
            "source":{"pointer":"/data/attributes/name"}},{"detail":"unknown","source":{"parameter":"sort"}}]}"#,
            "blank",
            "must not be blank",
            "",
            "/data/attributes/name=must not be blank|sort=unknown",
        ),
        (
            "ARM",
            r#"{"error":{"code":"InvalidTemplate","message":"It is invalid.","target":"t",
            "details":[{"code":"BadName","target":"properties.name","message":"too long"}]}}"#,
            "InvalidTemplate",
            "It is invalid.",
            "",
            "properties.name=too long",
        ),
        (
            "ARM",
            r#"{"error":{"code":"DeploymentFailed","message":"One failed",
            "details":[{"code":"Conflict","message":"the real cause"}]}}"#,
            "DeploymentFailed",
            "One failed: the real cause",
            "",
            "",
        ),
        (
            "Kubernetes",
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
            "message":"Deployment is invalid","reason":"Invalid","details":{"name":"web","kind":"Deployment",
            "causes":[{"reason":"FieldValueInvalid","message":"must be positive","field":"spec.replicas"}]},"code":422}"#,
            "Invalid",
            "Deployment is invalid",
            "",
            "spec.replicas=must be positive",
        ),
        (
            "Kubernetes",
            r#"{"kind":"Status","status":"Failure","message":"pods \"a\" not found","reason":"NotFound",
            "details":{"name":"a","kind":"pods"},"code":404}"#,
            "NotFound",
            "pods \"a\" not found",
            "",
            "",
        ),
        (
            "RFC 9457",
            r#"{"type":"https://x.test/low","title":"Low","detail":"too low","status":403,"instance":"/a",
            "invalid-params":[{"name":"age","reason":"must be positive"}]}"#,
            "https://x.test/low",
            "too low",
            "",
            "age=must be positive",
        ),
        (
            "ASP.NET",
            r#"{"type":"https://tools.ietf.org/html/rfc9110#section-15.5.1","title":"One or more errors.",
            "status":400,"traceId":"00-ab-cd-00","errors":{"Name":["The Name field is required."],"$.age":["Not a number."]}}"#,
            "",
            "One or more errors.",
            "00-ab-cd-00",
            "Name=The Name field is required.|$.age=Not a number.",
        ),
        (
            "Laravel",
            r#"{"message":"The given data was invalid.","errors":{"email":["The email field is required."]}}"#,
            "",
            "The given data was invalid.",
            "",
            "email=The email field is required.",
        ),
        (
            "Spring",
            r#"{"timestamp":"t","status":400,"error":"Bad Request","path":"/x","message":"",
            "errors":[{"objectName":"o","field":"age","defaultMessage":"must be positive","code":"Min"}]}"#,
            "Min",
            "Bad Request",
            "",
            "age=must be positive",
        ),
        (
            "google.rpc",
            r#"{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT","details":[
            {"@type":"type.googleapis.com/google.rpc.RequestInfo","requestId":"r"},
            {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"a","description":"b"}]}]}}"#,
            "INVALID_ARGUMENT",
            "bad",
            "",
            "a=b",
        ),
        (
            "GraphQL",
            r#"{"errors":[{"message":"no","path":["user"],"extensions":{"code":"X"}}],"data":null}"#,
            "X",
            "no",
            "",
            "user=no",
        ),
        (
            "html",
            r#"{"error":{"message":"<b>bold</b> &amp; more"}}"#,
            "",
            "bold & more",
            "",
            "",
        ),
        (
            "nested",
            r#"{"errors":{"address":{"zip":["is wrong"]},"items":[{"qty":["too small"]}]}}"#,
            "",
            "address.zip: is wrong; items[0].qty: too small",
            "",
            "address.zip=is wrong|items[0].qty=too small",
        ),
    ] {
        let got = read_text(body);
        assert_eq!(
            got.reason.as_deref().unwrap_or_default(),
            reason,
            "{who}: {body}"
        );
        assert_eq!(
            got.message.as_deref().unwrap_or_default(),
            message,
            "{who}: {body}"
        );
        assert_eq!(
            got.request_id.as_deref().unwrap_or_default(),
            request_id,
            "{who}: {body}"
        );
        let got: Vec<String> = got
            .fields
            .iter()
            .map(|(field, text)| format!("{field}={text}"))
            .collect();
        assert_eq!(got.join("|"), fields, "{who}: {body}");
    }
}

#[test]
fn unknown_bodies_are_shown_in_part_without_secrets() {
    let long = "x".repeat(5_000);
    for (body, want) in [
        (
            r#"{"result":"rejected","n":1}"#,
            r#"{"result":"rejected","n":1}"#,
        ),
        (r#"["a"]"#, r#"["a"]"#),
        (
            r#"{"result":"no","password":"s3cret","x":{"API_KEY":"s3cret","n":"y"}}"#,
            r#"{"result":"no","password":"...","x":{"API_KEY":"...","n":"y"}}"#,
        ),
        (
            r#"{"why":"no","auth":{"a":"s3cret"},"accessToken":["s3cret"]}"#,
            r#"{"why":"no","auth":"...","accessToken":"..."}"#,
        ),
        (
            r#"{"why":"no","blob":"s3cretAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            r#"{"why":"no","blob":"..."}"#,
        ),
        (r#"{"password":"s3cret"}"#, ""),
        ("{}", ""),
        ("[]", ""),
        (r#"{"a":null,"b":[{}]}"#, ""),
        ("[1,2]", "[1,2]"),
        (r#"{"foo":{"bar":1}}"#, r#"{"foo":{"bar":1}}"#),
        (
            r#"{"ok":false,"pin_token":1234}"#,
            r#"{"ok":false,"pin_token":"..."}"#,
        ),
    ] {
        let got = excerpt(&serde_json::from_str(body).unwrap());
        assert_eq!(got, want, "{body}");
        assert!(!got.contains("s3cret"), "{body}");
    }
    let words = "word ".repeat(5_000);
    for text in [long, words] {
        let got = excerpt(&serde_json::json!({"a": "b", "text": text}));
        assert!(
            got.len() <= MAX_EXCERPT_BYTES + 100 && got.starts_with(r#"{"a":"b""#),
            "{got}"
        );
    }
}

/// Nothing overflows or panics, whatever the upstream sends.
#[test]
fn hostile_bodies_are_read() {
    let mut deep = serde_json::json!(["x"]);
    for _ in 0..100 {
        deep = serde_json::json!({"errors": {"a": deep}});
    }
    let many: Vec<Value> = (0..1_000)
        .map(|n| serde_json::json!({"field": n.to_string(), "message": "m"}))
        .collect();
    let many = serde_json::json!({"errors": many});
    for body in [
        deep,
        many,
        Value::Null,
        serde_json::json!([[]]),
        serde_json::json!({"error": [null, 7]}),
    ] {
        let got = read(&body);
        assert!(got.fields.len() <= MAX_FIELDS);
        let _ = excerpt(&body);
    }
}

/// The members of these products are not where others have them.
#[test]
fn bodies_of_unusual_products_are_read() {
    for (product, body, reason, message, field) in [
        (
            "GitHub",
            r#"{"message":"Validation Failed","errors":[{"resource":"Issue","field":"title","code":"missing_field"}]}"#,
            "missing_field",
            "Validation Failed",
            Some(("title", "missing_field")),
        ),
        (
            "Ironic",
            r#"{"error_message":"{\"debuginfo\": null, \"faultcode\": \"Client\", \"faultstring\": \"Node x could not be found.\"}"}"#,
            "",
            "Node x could not be found.",
            None,
        ),
        (
            "CouchDB",
            r#"{"error":"not_found","reason":"missing"}"#,
            "not_found",
            "missing",
            None,
        ),
        (
            "Slack",
            r#"{"ok":false,"error":"channel_not_found"}"#,
            "channel_not_found",
            "channel_not_found",
            None,
        ),
        (
            "Bitbucket",
            r#"{"errors":[{"context":"name","message":"bad name","exceptionName":"com.atlassian.X"}]}"#,
            "",
            "bad name",
            Some(("name", "bad name")),
        ),
        (
            "Bitbucket Cloud",
            r#"{"type":"error","error":{"message":"Bad request","fields":{"src":["not a repository"]}}}"#,
            "",
            "Bad request",
            Some(("src", "not a repository")),
        ),
        (
            "vSphere",
            r#"{"type":"com.vmware.vapi.std.errors.not_found","value":{"messages":[{"args":[],"default_message":"no such VM","id":"x"}]}}"#,
            "com.vmware.vapi.std.errors.not_found",
            "no such VM",
            None,
        ),
        (
            "Redfish",
            r#"{"error":{"code":"Base.1.0.GeneralError","message":"See ExtendedInfo.","@Message.ExtendedInfo":[{"MessageId":"Base.1.0.PropertyValueNotInList","Message":"Red is not in the list.","RelatedProperties":["/IndicatorLED"]}]}}"#,
            "Base.1.0.GeneralError",
            "See ExtendedInfo.",
            Some(("/IndicatorLED", "Red is not in the list.")),
        ),
        (
            "Okta",
            r#"{"errorCode":"E0000001","errorSummary":"Api validation failed: login","errorCauses":[{"errorSummary":"An object with this field already exists"}]}"#,
            "E0000001",
            "Api validation failed: login: An object with this field already exists",
            None,
        ),
        (
            "Tencent Cloud",
            r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"not valid"},"RequestId":"ed93f3cb"}}"#,
            "AuthFailure.SignatureFailure",
            "not valid",
            None,
        ),
        (
            "Hetzner",
            r#"{"error":{"code":"invalid_input","message":"invalid input","details":{"fields":[{"name":"size","messages":["is too long"]}]}}}"#,
            "invalid_input",
            "invalid input",
            Some(("size", "is too long")),
        ),
        (
            "Salesforce",
            r#"[{"message":"Required fields are missing: [Name]","errorCode":"REQUIRED_FIELD_MISSING","fields":["Name"]}]"#,
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [Name]",
            None,
        ),
        (
            "Proxmox",
            r#"{"data":null,"errors":{"vmid":"invalid format"}}"#,
            "",
            "vmid: invalid format",
            Some(("vmid", "invalid format")),
        ),
    ] {
        let error = read(&serde_json::from_str(body).expect(product));
        assert_eq!(
            error.reason.as_deref().unwrap_or_default(),
            reason,
            "{product}"
        );
        assert_eq!(error.message.as_deref(), Some(message), "{product}");
        let fields = error.fields.iter().map(|(field, text)| (&**field, &**text));
        assert_eq!(
            fields.collect::<Vec<_>>(),
            Vec::from_iter(field),
            "{product}"
        );
    }
}
