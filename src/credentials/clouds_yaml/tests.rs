use std::collections::HashMap;

use secrecy::ExposeSecret;

use super::*;

fn env(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let variables: HashMap<String, String> = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    move |name| variables.get(name).cloned()
}

fn id_or_name(value: &IdOrName) -> String {
    match value {
        IdOrName::Id(id) => format!("id:{id}"),
        IdOrName::Name(name) => name.clone(),
    }
}

fn named(value: &Named) -> String {
    let domain = value.domain.as_ref().map(id_or_name);
    format!(
        "{}@{}",
        id_or_name(&value.id_or_name),
        domain.unwrap_or_default()
    )
}

/// Returns the login as one text.
fn login_as_text(config: &CloudConfig) -> String {
    let keystone = &config.keystone;
    let identity = match &keystone.identity {
        Identity::Password { user, password } => {
            format!("{} {}", named(user), password.expose_secret())
        }
        Identity::ApplicationCredential {
            id_or_name: credential,
            user,
            secret,
        } => format!(
            "ac {} of {} {}",
            id_or_name(credential),
            user.as_ref().map(named).unwrap_or_default(),
            secret.expose_secret()
        ),
        Identity::Token(token) => format!("token {}", token.expose_secret()),
    };
    format!(
        "{identity} {} {} {} {}",
        keystone.project.as_ref().map_or("-".into(), named),
        keystone.region.as_deref().unwrap_or("-"),
        keystone.interface,
        keystone.auth_url
    )
}

#[test]
fn login_is_read_from_variables() {
    let url = ("OS_AUTH_URL", "https://k.test/v3");
    let user = ("OS_USERNAME", "demo");
    let password = ("OS_PASSWORD", "pw");
    let project = ("OS_PROJECT_NAME", "p");
    for (variables, want) in [
        (&[][..], Ok("")),
        (&[("OS_REGION_NAME", "R"), ("OS_CLOUD", "x")], Ok("")),
        (
            &[url, user, password, project],
            Ok("demo@id:default pw p@id:default - public https://k.test/v3"),
        ),
        (
            &[
                url,
                user,
                password,
                project,
                ("OS_USER_DOMAIN_NAME", "OTC"),
                ("OS_REGION_NAME", "eu-de"),
                ("OS_INTERFACE", "internalURL"),
            ],
            Ok("demo@OTC pw p@OTC eu-de internal https://k.test/v3"),
        ),
        (
            &[
                url,
                ("OS_USER_ID", "u1"),
                password,
                ("OS_PROJECT_ID", "p1"),
                ("OS_USER_DOMAIN_NAME", "ignored"),
            ],
            Ok("id:u1@ pw id:p1@ - public https://k.test/v3"),
        ),
        (
            &[
                url,
                ("OS_AUTH_TYPE", "v3applicationcredential"),
                ("OS_APPLICATION_CREDENTIAL_ID", "a1"),
                ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
                project,
            ],
            Ok("ac id:a1 of  s - - public https://k.test/v3"),
        ),
        (
            &[
                url,
                ("OS_APPLICATION_CREDENTIAL_NAME", "ci"),
                ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
                user,
                ("OS_USER_DOMAIN_ID", "d1"),
            ],
            Ok("ac ci of demo@id:d1 s - - public https://k.test/v3"),
        ),
        (
            &[url, ("OS_TOKEN", "t"), project, ("OS_DEFAULT_DOMAIN", "d")],
            Ok("token t p@id:d - public https://k.test/v3"),
        ),
        (&[user, password], Err("OS_AUTH_URL is missing")),
        (&[url, user, project], Err("OS_PASSWORD is missing")),
        (&[url, password, project], Err("OS_USERNAME is missing")),
        (&[url, user, password], Err("OS_PROJECT_NAME is missing")),
        (
            &[url, ("OS_APPLICATION_CREDENTIAL_ID", "a")],
            Err("OS_APPLICATION_CREDENTIAL_SECRET is missing"),
        ),
        (
            &[
                url,
                ("OS_APPLICATION_CREDENTIAL_NAME", "a"),
                ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
            ],
            Err("OS_USERNAME is missing"),
        ),
        (
            &[("OS_AUTH_URL", "k.test"), user],
            Err("OS_AUTH_URL is not a URL"),
        ),
        (
            &[("OS_AUTH_URL", "https://k.test/v2.0"), user],
            Err("use v3"),
        ),
        (
            &[url, ("OS_AUTH_TYPE", "v3kerberos")],
            Err("v3kerberos is not supported"),
        ),
        (
            &[url, user, password, project, ("OS_INTERFACE", "outer")],
            Err("OS_INTERFACE must be"),
        ),
    ] {
        match (from_env(&env(variables)), want) {
            (Ok(got), Ok(want)) => {
                assert_eq!(got.as_ref().map(login_as_text).unwrap_or_default(), want);
            }
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{variables:?}: {got:?}, not {want:?}"),
        }
    }
    for (insecure, verify) in [
        ("True", false),
        ("1", false),
        ("yes", false),
        ("false", true),
    ] {
        let variables = [url, user, password, project, ("OS_INSECURE", insecure)];
        let config = from_env(&env(&variables)).unwrap().unwrap();
        assert_eq!(config.verify, verify, "{insecure}");
    }
}

const CLOUDS: &str = r"
clouds:
  demo:
    auth:
      auth_url: http://127.0.0.1:15000/v3
      username: demo
      project_name: demo
      project_id: p1
      user_domain_name: Default
      project_domain_name: Default
    region_name: RegionOne
    cacert: ~/ca.pem
    orchestration_endpoint_override: http://127.0.0.1:18004/v1
  plain:
    auth-url: https://k.test
    auth: {username: u, password: 12345, project-name: p, domain_name: D}
    regions: [A, B]
    endpoint_type: adminURL
  vendor:
    profile: rackspace
  careless:
    auth: {auth_url: 'https://k.test', username: u, password: p, project_id: p}
    verify: false
";

#[test]
fn login_is_read_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let clouds = write("clouds.yaml", CLOUDS);
    let secure = write(
        "secure.yaml",
        "clouds: {demo: {auth: {password: pw}}, other: {auth: {password: x}}}",
    );
    let one = write(
        "one.yaml",
        "clouds: {only: {auth: {auth_url: 'https://k.test', token: t, project_id: p}}}",
    );
    let broken = write("broken.yaml", "clouds:\n  a: [SECRET\n");
    let none = write("none.yaml", "cloud: {}\n");
    let home = write(".config/openstack/clouds.yml", CLOUDS);
    let home = home.trim_end_matches("/.config/openstack/clouds.yml");

    let file = "OS_CLIENT_CONFIG_FILE";
    let secret = ("OS_CLIENT_SECURE_FILE", secure.as_str());
    let demo = "demo@Default pw id:p1@ RegionOne public http://127.0.0.1:15000/v3";
    let plain = "u@D 12345 p@D A admin https://k.test/";
    for (name, variables, want) in [
        (
            Some("demo"),
            &[(file, clouds.as_str()), secret][..],
            Ok(demo),
        ),
        (
            None,
            &[(file, &clouds), secret, ("OS_CLOUD", "demo")],
            Ok(demo),
        ),
        (
            Some("plain"),
            &[(file, clouds.as_str()), ("OS_CLOUD", "demo")],
            Ok(plain),
        ),
        (Some("plain"), &[("HOME", home)], Ok(plain)),
        (
            None,
            &[(file, one.as_str())],
            Ok("token t id:p@ - public https://k.test/"),
        ),
        (
            Some("demo"),
            &[(file, clouds.as_str())],
            Err("cloud demo: `password` is missing"),
        ),
        (
            None,
            &[(file, clouds.as_str())],
            Err("name one of its clouds (demo, plain, vendor, careless)"),
        ),
        (
            Some("mine"),
            &[(file, clouds.as_str())],
            Err("no cloud mine"),
        ),
        (
            Some("vendor"),
            &[(file, clouds.as_str())],
            Err("profile rackspace"),
        ),
        (Some("a"), &[(file, broken.as_str())], Err("is not YAML")),
        (
            Some("a"),
            &[(file, none.as_str())],
            Err("no mapping `clouds`"),
        ),
        (
            Some("a"),
            &[(file, "/nowhere.yaml")],
            Err("/nowhere.yaml: cannot be read"),
        ),
        (
            Some("a"),
            &[("HOME", "/nowhere")],
            Err("/nowhere/.config/openstack"),
        ),
    ] {
        match (from_cloud(name, &env(variables)), want) {
            (Ok(got), Ok(want)) => assert_eq!(login_as_text(&got), want),
            (Err(got), Err(want)) => {
                assert!(got.contains(want), "{got}");
                assert!(!got.contains("SECRET"), "{got}");
            }
            (got, want) => panic!("{name:?} {variables:?}: {got:?}, not {want:?}"),
        }
    }

    let env = env(&[(file, &clouds), secret, ("HOME", "/home/me")]);
    let config = from_cloud(Some("demo"), &env).unwrap();
    assert_eq!(config.project_id.as_deref(), Some("p1"));
    assert_eq!(config.cacert, Some(PathBuf::from("/home/me/ca.pem")));
    assert_eq!(
        config.endpoint_override.as_ref().map(Url::as_str),
        Some("http://127.0.0.1:18004/v1")
    );
    assert!(config.verify);
    assert!(!format!("{config:?}").contains("\"pw\""));
    assert!(!from_cloud(Some("careless"), &env).unwrap().verify);
}

#[test]
fn long_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clouds.yaml");
    for (length, valid) in [(10, true), (11, false)] {
        std::fs::write(&path, "x".repeat(length)).unwrap();
        assert_eq!(read(&path, 10).is_ok(), valid, "{length}");
    }
}
