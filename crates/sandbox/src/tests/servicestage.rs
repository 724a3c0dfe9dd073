//! Tests of single calls to ServiceStage.

mod scenarios;

use super::*;

fn cas(rest: &str) -> String {
    format!("/v3/{PROJECT_ID}/cas/{rest}")
}

fn addons(rest: &str) -> String {
    cas(&format!("environments/{ENVIRONMENT_ID}/addons{rest}"))
}

#[tokio::test]
async fn invalid_servicestage_calls_are_rejected() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let token = sandbox.demo().await;
    let action = addons(&format!("/{ADDON_ID}/action"));
    for (method, path, body, status, code) in [
        (
            "GET",
            cas("environments/nowhere/addons"),
            json!(null),
            404,
            "SVCSTG.00100411",
        ),
        (
            "GET",
            addons("/nothing"),
            json!(null),
            401,
            "SVCSTG.00100401",
        ),
        (
            "POST",
            addons("/nothing/action"),
            json!({"action": "restart"}),
            401,
            "SVCSTG.00100401",
        ),
        (
            "DELETE",
            addons("/nothing"),
            json!(null),
            401,
            "SVCSTG.00100401",
        ),
        ("POST", action.clone(), json!({}), 400, "SVCSTG.00100400"),
        (
            "POST",
            action.clone(),
            json!({"action": "dance"}),
            400,
            "SVCSTG.00100418",
        ),
        (
            "POST",
            addons(""),
            json!({"name": "sermantInjector", "cce_id": "c"}),
            400,
            "SVCSTG.00100400",
        ),
        (
            "GET",
            cas("jobs/JOBnone"),
            json!(null),
            400,
            "SVCSTG.00100429",
        ),
        ("GET", cas("jobs/"), json!(null), 400, "SVCSTG.00100414"),
        ("GET", cas("nowhere"), json!(null), 404, "APIGW.0101"),
        ("PATCH", cas("applications"), json!(null), 404, "APIGW.0101"),
        (
            "GET",
            format!("/v3/{OTHER_PROJECT_ID}/cas/jobs/x"),
            json!(null),
            403,
            "APIGW.0302",
        ),
    ] {
        let got = sandbox.call(&token, method, &path, body).await;
        assert_eq!(
            (got.status, got.body["error_code"].as_str()),
            (status, Some(code)),
            "{method} {path}"
        );
        assert_eq!(got.header("x-request-id").len(), 32);
    }
    let got = sandbox
        .call("nonsense", "GET", &addons(""), Value::Null)
        .await;
    assert_eq!(
        (got.status, got.body["error_code"].as_str()),
        (401, Some("APIGW.0301"))
    );
    assert_eq!(got.body["request_id"], got.header("x-request-id"));
    // An expired token can be replaced; an invalid signature stays invalid.
    let said = got.body["error_msg"].as_str().unwrap();
    assert!(!said.contains("aksk"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn jobs_progress_one_task_per_step() {
    let sandbox = TestSandbox::new(Settings {
        play: true,
        ..TEST_SETTINGS
    });
    let token = sandbox.demo().await;
    let read = async |path: String| sandbox.call(&token, "GET", &path, Value::Null).await.body;
    let create = async |name: &str| {
        let body = json!({"name": name, "cce_id": "c", "cse_id": "e"});
        sandbox.call(&token, "POST", &addons(""), body).await.body
    };
    let (well, ill) = (create("sermantInjector").await, create("to-fail").await);
    for (job, addon, tasks) in [
        ("SUBMITTED", "INITIALIZING", ["SUBMITTED", "SUBMITTED"]),
        ("RUNNING", "INITIALIZING", ["RUNNING", "SUBMITTED"]),
        ("RUNNING", "INITIALIZING", ["SUCCEEDED", "RUNNING"]),
        ("SUCCEEDED", "SUCCEEDED", ["SUCCEEDED", "SUCCEEDED"]),
        ("SUCCEEDED", "SUCCEEDED", ["SUCCEEDED", "SUCCEEDED"]),
    ] {
        let now = read(cas(&format!("jobs/{}", well["job_id"].as_str().unwrap()))).await;
        assert_eq!(now["job"]["execution_status"], job);
        assert_eq!(
            [
                &now["tasks"][0]["task_status"],
                &now["tasks"][1]["task_status"]
            ],
            tasks.map(Value::from).each_ref()
        );
        assert_eq!(
            read(addons(&format!("/{}", well["id"].as_str().unwrap()))).await["status"],
            addon
        );
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    let ill = ill["id"].as_str().unwrap();
    let now = read(addons(&format!("/{ill}"))).await;
    assert_eq!(now["status"], "FAILED");
    let job = cas(&format!(
        "jobs/{}?limit=1&desc=true&offset=0",
        now["job_id"].as_str().unwrap()
    ));
    let job = read(job).await;
    assert_eq!(
        (&job["job"]["execution_status"], &job["task_count"]),
        (&json!("FAILED"), &json!(2))
    );
    assert_eq!(
        (
            job["tasks"].as_array().unwrap().len(),
            &job["tasks"][0]["task_status"]
        ),
        (1, &json!("FAILED"))
    );

    let redeployed = sandbox
        .call(
            &token,
            "POST",
            &addons(&format!("/{ADDON_ID}/action")),
            json!({"action": "redeploy"}),
        )
        .await;
    assert!(
        redeployed.body["job_id"]
            .as_str()
            .unwrap()
            .starts_with("JOB")
    );
    assert_eq!(
        read(addons(&format!("/{ADDON_ID}"))).await["status"],
        "UPGRADING"
    );

    let deleted = sandbox
        .call(&token, "DELETE", &addons(&format!("/{ill}")), Value::Null)
        .await;
    assert_eq!(deleted.status, 200);
    assert_eq!(read(addons(&format!("/{ill}"))).await["status"], "DELETING");
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(
        sandbox
            .call(&token, "GET", &addons(&format!("/{ill}")), Value::Null)
            .await
            .status,
        401
    );
    assert_eq!(
        read(addons("")).await["addons"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn addon_responses_equal_fixtures() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let token = sandbox.demo().await;
    let fixture = replay::read("servicestage/GetAddon.json");
    let got = sandbox
        .call(&token, "GET", &addons(&format!("/{ADDON_ID}")), Value::Null)
        .await;
    assert_eq!(got.body, fixture["response"]["body"]);
    let fixture = replay::read("servicestage/GetJob.json");
    let job = cas(&format!("jobs/{}", got.body["job_id"].as_str().unwrap()));
    let got = sandbox.call(&token, "GET", &job, Value::Null).await;
    let members = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(members(&got.body), members(&fixture["response"]["body"]));
    assert_eq!(
        members(&got.body["job"]),
        members(&fixture["response"]["body"]["job"])
    );
}

#[tokio::test(start_paused = true)]
async fn signatures_are_verified() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let started = sandbox.upstreams.clock.now();
    let scoped = |access: &str,
                  secret: &str,
                  token: Option<&str>,
                  project: &str,
                  target: &str,
                  late: u64| {
        let mut more = vec![("x-project-id", project)];
        more.extend(token.map(|token| ("x-security-token", token)));
        let at = started + Duration::from_secs(late);
        let headers = crate::signature::tests::sign(access, secret, target, at, &more);
        let text = |(name, value): (&http::HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(text).collect::<Vec<_>>()
    };
    let signed = |access: &str, secret: &str, target: &str, late: u64| {
        scoped(access, secret, None, PROJECT_ID, target, late)
    };
    let get = async |target: &str, headers: &[(String, String)]| {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        sandbox.send("GET", target, &headers, None).await
    };
    let list = addons("");
    let target = format!("{list}?b=%20x&a=1");
    let good = signed(ACCESS_KEY, SECRET_KEY, &target, 0);
    assert_eq!(get(&target, &good).await.status, 200);
    let temporary = (
        TEMPORARY_ACCESS_KEY,
        TEMPORARY_SECRET_KEY,
        Some(SECURITY_TOKEN),
    );
    let (access, secret, security_token) = temporary;
    let good_too = scoped(access, secret, security_token, PROJECT_ID, &target, 15 * 60);
    assert_eq!(get(&target, &good_too).await.status, 200);
    let foreign = scoped(ACCESS_KEY, SECRET_KEY, None, OTHER_PROJECT_ID, &target, 0);
    let got = get(&target, &foreign).await;
    assert_eq!(
        (got.status, &got.body["error_code"]),
        (403, &json!("APIGW.0302"))
    );
    let without = |name: &str, headers: &[(String, String)]| -> Vec<(String, String)> {
        let stored = headers.iter().filter(|(header, _)| header != name);
        stored.cloned().collect()
    };
    for (what, target, headers) in [
        ("another query", format!("{list}?b=%20x&a=2"), good.clone()),
        (
            "another secret",
            target.clone(),
            signed(ACCESS_KEY, "SKWRONG", &target, 0),
        ),
        (
            "another key",
            target.clone(),
            signed("AKWRONG", SECRET_KEY, &target, 0),
        ),
        (
            "too late",
            target.clone(),
            signed(ACCESS_KEY, SECRET_KEY, &target, 16 * 60),
        ),
        (
            "a token that is none of these keys'",
            target.clone(),
            scoped(
                ACCESS_KEY,
                SECRET_KEY,
                Some(SECURITY_TOKEN),
                PROJECT_ID,
                &target,
                0,
            ),
        ),
        (
            "temporary keys without their token",
            target.clone(),
            signed(TEMPORARY_ACCESS_KEY, TEMPORARY_SECRET_KEY, &target, 0),
        ),
        (
            "temporary keys with another token",
            target.clone(),
            scoped(
                TEMPORARY_ACCESS_KEY,
                TEMPORARY_SECRET_KEY,
                Some("x"),
                PROJECT_ID,
                &target,
                0,
            ),
        ),
        ("no date", target.clone(), without("x-sdk-date", &good)),
        ("no signature", target.clone(), Vec::new()),
    ] {
        let got = get(&target, &headers).await;
        assert_eq!(
            (got.status, got.body["error_code"].as_str()),
            (401, Some("APIGW.0301")),
            "{what}"
        );
    }
    // IAM finds a region's project by the same keys.
    let projects = format!("/v3/projects?name={REGION}");
    let got = get(&projects, &signed(ACCESS_KEY, SECRET_KEY, &projects, 0)).await;
    assert_eq!(got.body["projects"][0]["id"], PROJECT_ID);
    assert_eq!(get(&projects, &[]).await.status, 401);
}
