//! Problems that are found with more than one key, each at the key to change.

use super::*;

/// Returns the problems of a file in a directory, one line each.
fn problems_in(directory: &Path, text: &str, env: Env<'_>) -> Vec<String> {
    match Config::parse("d.toml", text, directory, Config::empty(), env) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn admin_listener_needs_an_address_of_its_own() {
    for (grpc, admin, want) in [
        ("127.0.0.1:5", "127.0.0.1:5", true),
        ("0.0.0.0:5", "127.0.0.1:5", true),
        ("127.0.0.1:5", "0.0.0.0:5", true),
        ("[::1]:5", "[::]:5", true),
        ("127.0.0.1:5", "127.0.0.1:6", false),
        ("127.0.0.1:5", "127.0.0.2:5", false),
        ("127.0.0.1:5", "[::1]:5", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("127.0.0.1:5", "off", false),
    ] {
        let text = format!("[listen]\ngrpc='{grpc}'\nadmin='{admin}'\n{HEAT}auth={{kind='none'}}");
        let problem = format!(
            "d.toml:3: listen.admin: {admin} is taken by the gRPC listener on {grpc}: choose \
             another port"
        );
        let found = problems_in(Path::new(""), &text, &no_env);
        assert_eq!(
            found,
            Vec::from_iter(want.then_some(problem)),
            "{grpc} {admin}"
        );
    }
    let env = |name: &str| (name == "DRAWBRIDGE_ADMIN").then(|| "127.0.0.1:50051".to_owned());
    let found = problems_in(Path::new(""), HEAT, &env);
    assert!(found[0].starts_with("environment: DRAWBRIDGE_ADMIN: 127.0.0.1:50051 is taken"));
    let env = |name: &str| (name == "DRAWBRIDGE_LISTEN").then(|| "127.0.0.1:7".to_owned());
    let found = problems_in(
        Path::new(""),
        &format!("[listen]\nadmin='127.0.0.1:7'\n{HEAT}"),
        &env,
    );
    assert!(
        found[0].starts_with("d.toml:2: listen.admin: "),
        "{found:?}"
    );
}

#[test]
fn files_without_certificates_are_reported_at_their_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).expect("written");
    };
    let pem = rcgen::generate_simple_self_signed(["gateway".to_owned()]).expect("one");
    let pem = pem.cert.pem();
    write("good", &pem);
    write("words", "a certificate");
    write("empty", "");
    write(
        "no_base64",
        "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n",
    );
    write(
        "other",
        &format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    );
    let clouds = |ca: &str| {
        format!(
            "clouds: {{c: {{cacert: {ca}, auth: {{auth_url: 'https://k.test', username: u, \
             password: p, project_id: p, user_domain_id: d}}}}}}"
        )
    };
    for (file, want) in [
        ("good", None),
        ("words", Some("words: contains no PEM certificate")),
        ("empty", Some("empty: contains no PEM certificate")),
        ("no_base64", Some("no_base64: ")),
        ("other", Some("other: its certificate 2 is invalid: ")),
    ] {
        let path = directory.path().join(file).display().to_string();
        write("clouds.yaml", &clouds(&path));
        let clouds = directory.path().join("clouds.yaml").display().to_string();
        let env = |name: &str| (name == "OS_CLIENT_CONFIG_FILE").then(|| clouds.clone());
        let own = format!("{HEAT}ca_file='{file}'\nauth={{kind='none'}}");
        let of_cloud = format!("{HEAT}auth={{cloud='c'}}");
        for (text, place) in [
            (own, "d.toml:5: upstream.ca_file: "),
            (
                of_cloud,
                "d.toml:5: upstream.auth.cloud: cacert of cloud c, ",
            ),
        ] {
            let found = problems_in(directory.path(), &text, &env);
            assert_eq!(found.len(), usize::from(want.is_some()), "{found:?}");
            if let Some(want) = want {
                assert!(
                    found[0].starts_with(place) && found[0].contains(want),
                    "{found:?}"
                );
            }
        }
    }
}

#[test]
fn plaintext_credentials_are_reported_at_their_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let clouds = directory.path().join("clouds.yaml");
    let cloud = "clouds: {c: {auth: {auth_url: 'http://k.test', username: u, password: p, \
                 project_id: p, user_domain_id: d}}, e: {orchestration_endpoint_override: \
                 'http://h.test', auth: {auth_url: 'https://k.test', username: u, password: p, \
                 project_id: p, user_domain_id: d}}}";
    fs::write(&clouds, cloud).expect("written");
    let clouds = clouds.display().to_string();
    let http = HEAT.replace("https", "http");
    let bare = HEAT.replace("endpoint='https://a.test'\n", "");
    let basic = "auth={kind='basic', username='u', password_env='SECRET'}";
    for (text, want) in [
        (format!("{http}{basic}"), Some("4: upstream.endpoint: ")),
        (
            format!(
                "{HEAT}[upstream.auth]\nkind='keystone'\nauth_url='http://k.test'\nusername='u'\n\
                 password_env='SECRET'\nproject_id='p'"
            ),
            Some("7: upstream.auth.auth_url: "),
        ),
        (
            format!(
                "{HEAT}[upstream.auth]\nkind='ak_sk'\naccess_key='a'\nsecret_key_env='SECRET'\n\
                 region='r'\niam_endpoint='http://i.test'"
            ),
            Some("10: upstream.auth.iam_endpoint: "),
        ),
        (
            format!("{bare}auth={{cloud='c'}}"),
            Some("4: upstream.auth.cloud: auth_url: "),
        ),
        (
            format!("{bare}auth={{cloud='e'}}"),
            Some("4: upstream.auth.cloud: endpoint: "),
        ),
        (format!("{http}auth={{kind='none'}}"), None),
        (
            format!("{http}{basic}\nallow_plaintext_credentials=true"),
            None,
        ),
        (
            format!(
                "{}{basic}",
                HEAT.replace("https://a.test", "http://127.0.0.1:1")
            ),
            None,
        ),
    ] {
        let env = |name: &str| match name {
            "OS_CLIENT_CONFIG_FILE" => Some(clouds.clone()),
            name => env(name),
        };
        let found = problems_in(directory.path(), &text, &env);
        match want {
            None => assert!(found.is_empty(), "{text}: {found:?}"),
            Some(want) => {
                let want = format!("d.toml:{want}credentials would be sent over plaintext HTTP");
                assert!(
                    found.len() == 1 && found[0].starts_with(&want),
                    "{text}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn credentials_that_the_family_does_not_accept_are_rejected() {
    let directory = tempfile::tempdir().expect("a directory");
    let clouds = directory.path().join("clouds.yaml");
    let cloud = "clouds: {c: {auth: {auth_url: 'https://k.test', username: u, password: p, \
                 project_id: p, user_domain_id: d}}}";
    fs::write(&clouds, cloud).expect("written");
    let clouds = clouds.display().to_string();
    let env = |name: &str| match name {
        "OS_CLIENT_CONFIG_FILE" => Some(clouds.clone()),
        name => env(name),
    };
    let keystone = "kind='keystone', auth_url='https://k.test', username='u', \
                    password_env='SECRET', project_id='p'";
    let user = |kind: &str| format!("kind='{kind}', username='u', password_env='SECRET'");
    let ak_sk = "kind='ak_sk', access_key='a', secret_key_env='SECRET'";
    let token = "kind='token', token_env='SECRET'";
    for (family, auth, want) in [
        (
            "jp1ao",
            keystone,
            Some("kind: the API of the family jp1ao accepts the kinds "),
        ),
        (
            "jp1ao",
            "cloud='c'",
            Some("cloud: is a login of the kind keystone: the API of the family jp1ao accepts"),
        ),
        (
            "jp1ao",
            ak_sk,
            Some("kind: the API of the family jp1ao accepts"),
        ),
        (
            "jp1ao",
            &user("rackspace"),
            Some("kind: the API of the family jp1ao accepts"),
        ),
        ("jp1ao", &user("basic"), None),
        ("jp1ao", &user("hsso"), None),
        ("jp1ao", token, None),
        (
            "heat",
            &user("hsso"),
            Some("kind: the API of the family heat accepts"),
        ),
        ("heat", ak_sk, None),
        ("heat", "cloud='c'", None),
        (
            "servicestage",
            &user("basic"),
            Some("kind: the API of the family servicestage accepts"),
        ),
        ("servicestage", keystone, None),
        ("servicestage", ak_sk, None),
    ] {
        let text = format!("{}auth={{{auth}}}", HEAT.replace("heat", family));
        let found = problems_in(directory.path(), &text, &env);
        match want {
            None => assert!(found.is_empty(), "{text}: {found:?}"),
            Some(want) => {
                let want = format!("d.toml:5: upstream.auth.{want}");
                assert!(found[0].starts_with(&want), "{text}: {found:?}");
                assert!(schema::tests::problem_of(&text).is_some(), "{text}");
            }
        }
    }
}
