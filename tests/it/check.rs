//! `drawbridge check` with the upstreams of the sandbox.

use drawbridge::cli::{check, quickstart};
use drawbridge::credentials;
use drawbridge_sandbox as sandbox;

use crate::support::settings;

#[tokio::test]
async fn upstreams_that_do_not_respond_or_reject_the_login_are_reported() {
    let sandbox = sandbox::Sandbox::start(([127, 0, 0, 1], 0).into(), Default::default())
        .await
        .unwrap();
    let good = quickstart::upstreams(&sandbox);
    check::run(&settings(good.clone())).await.unwrap();

    let mut wrong = good;
    wrong[0].endpoint = Some("http://127.0.0.1:1".parse().unwrap());
    let credentials::Settings::AkSk(keys) = &mut wrong[1].auth else {
        panic!("the sandbox's ServiceStage requires signatures");
    };
    keys.secret_key = "another".into();
    wrong[2].auth = credentials::Settings::Basic {
        username: sandbox::JP1AO_USERNAME.into(),
        password: "another".into(),
    };
    let problems = check::run(&settings(wrong)).await.unwrap_err();
    for (problem, says) in problems.iter().zip([
        "upstream sandbox-heat: does not respond: cannot connect",
        "upstream sandbox-servicestage: rejects the credentials",
        "upstream sandbox-jp1ao: rejects the credentials",
    ]) {
        assert!(problem.starts_with(says), "{problem}");
        assert!(!problem.contains("another"), "{problem}");
    }
    assert_eq!(problems.len(), 3);
}
