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
        keystone.interfaces.join(","),
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
        (&[("OS_REGION_NAME", "R")], Ok("")),
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
        match (from_env(None, &env(variables)), want) {
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
        let config = from_env(None, &env(&variables)).unwrap().unwrap();
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
            Err("clouds.yaml:3: cloud demo: `auth.password` is missing"),
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
            Err("for Rackspace, use auth = { kind"),
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
            Err("OS_CLIENT_CONFIG_FILE: the file /nowhere.yaml does not exist"),
        ),
        (
            Some("a"),
            &[("HOME", "/nowhere")],
            Err("/nowhere/.config/openstack"),
        ),
    ] {
        match (from_cloud(name, None, &env(variables)), want) {
            (Ok(got), Ok(want)) => assert_eq!(login_as_text(&got), want),
            (Err(got), Err(want)) => {
                assert!(got.contains(want), "{got}");
                assert!(!got.contains("SECRET"), "{got}");
            }
            (got, want) => panic!("{name:?} {variables:?}: {got:?}, not {want:?}"),
        }
    }

    let env = env(&[(file, &clouds), secret, ("HOME", "/home/me")]);
    let config = from_cloud(Some("demo"), None, &env).unwrap();
    assert_eq!(config.project_id.as_deref(), Some("p1"));
    assert_eq!(config.cacert, Some(PathBuf::from("/home/me/ca.pem")));
    assert_eq!(
        config.endpoint_override.as_ref().map(Url::as_str),
        Some("http://127.0.0.1:18004/v1")
    );
    assert!(config.verify);
    assert!(!format!("{config:?}").contains("\"pw\""));
    assert!(!from_cloud(Some("careless"), None, &env).unwrap().verify);
}

#[test]
fn os_cloud_names_the_cloud_of_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clouds.yaml");
    std::fs::write(&path, CLOUDS).unwrap();
    let file = ("OS_CLIENT_CONFIG_FILE", path.to_str().unwrap());
    let cloud = ("OS_CLOUD", "plain");
    let login = [
        ("OS_AUTH_URL", "https://env.test"),
        ("OS_USERNAME", "e"),
        ("OS_PASSWORD", "p"),
        ("OS_PROJECT_ID", "i"),
    ];
    let region = ("OS_REGION_NAME", "B");
    let of_cloud = |region: &str| format!("u@D 12345 p@D {region} admin https://k.test/");
    let of_variables = |region| format!("e@id:default p id:i@ {region} public https://env.test/");
    for (variables, region, want, warnings) in [
        (vec![file, cloud], None, of_cloud("A"), 0),
        (vec![file, cloud, region], None, of_cloud("B"), 0),
        (vec![file, cloud, region], Some("C"), of_cloud("C"), 0),
        (
            [vec![file, cloud], login.to_vec()].concat(),
            None,
            of_cloud("A"),
            1,
        ),
        (
            [vec![file, ("OS_CLOUD", "envvars")], login.to_vec()].concat(),
            None,
            of_variables("-"),
            0,
        ),
        (login.to_vec(), Some("C"), of_variables("C"), 0),
    ] {
        let config = from_env(region, &env(&variables)).unwrap().unwrap();
        assert_eq!(login_as_text(&config), want, "{variables:?}");
        assert_eq!(config.notices.len(), warnings, "{:?}", config.notices);
    }
    let problem = from_env(None, &env(&[file, ("OS_CLOUD", "plane")])).unwrap_err();
    assert!(
        problem.contains("no cloud plane, did you mean plain?"),
        "{problem}"
    );
}

#[test]
fn plain_scalars_have_the_types_of_pyyaml() {
    for (text, want) in [
        ("0123", "83"),
        ("0o17", "0o17"),
        ("0x1f", "31"),
        ("0b101", "5"),
        ("-12", "-12"),
        ("1_000", "1000"),
        ("089", "089"),
        ("12:30", "750"),
        ("12:60", "12:60"),
        ("1.10", "1.1"),
        (".5", "0.5"),
        ("1e3", "1e3"),
        ("1.0e+3", "1000.0"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("'0123'", "0123"),
        ("\"yes\"", "yes"),
        ("!!str 0123", "0123"),
        ("y", "y"),
        ("2026-11-30", "2026-11-30"),
    ] {
        let Ok((root, _)) = document::parse("f", text) else {
            panic!("{text}");
        };
        match root.value {
            Value::Text(got) => assert_eq!(got, want, "{text}"),
            _ => panic!("{text}"),
        }
    }
}

#[test]
fn invalid_files_have_a_line_and_no_text_of_the_file() {
    let billion = (0..30).fold("a0: &a0 [SECRET, SECRET]\n".to_owned(), |text, n| {
        format!("{text}a{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1)
    });
    for (text, want) in [
        ("clouds:\n  a: [SECRET\n", "is not YAML"),
        (
            "clouds:\n a: SECRET\n  b: SECRET\n",
            "f:3: this is not YAML",
        ),
        (
            "a:\n  p: @SECRET\n",
            "column 6: unexpected character: put the value in quotes",
        ),
        ("a:\n  p: %SECRET\n", "put the value in quotes"),
        (
            "a:\n  p: *SECRET\n  u: x\n",
            "unknown anchor: put the value in quotes",
        ),
        (
            "a:\n  p: &SECRET SECRET: x\n  u: x\n",
            "put the value in quotes",
        ),
        ("a:\n  p: SECRET: SECRET\n", "put the value in quotes"),
        ("a:\n  p: {SECRET\n  u: x\n", "put the value in quotes"),
        (
            "a:\n  p: 'SECRET'SECRET'\n  u: x\n",
            "put the value in quotes",
        ),
        ("a:\n  p: {{ SECRET }}\n", "it is a template"),
        (
            "a:\n  p: x\n\tu: SECRET\n",
            "indent with blanks instead of tabs",
        ),
        (
            "a:\n\tu: SECRET\n  p: x\n",
            "indent with blanks instead of tabs",
        ),
        ("a: 1\n---\nb: SECRET\n", "f:2: there is a second document"),
        (
            "clouds:\n  a:\n    <<: SECRET\n",
            "f:3: `<<` must name a mapping",
        ),
        ("clouds:\n  ? [SECRET]\n  : 1\n", "a key must be a text"),
        ("clouds: &c\n  a: *c\n", "f:2: "),
        (&*billion, "has too many values"),
        (
            &format!("{}{}", "[".repeat(100), "]".repeat(100)),
            "has too many values",
        ),
    ] {
        let Err((place, problem)) = document::parse("f", text) else {
            panic!("{text}");
        };
        let got = format!("{place}: {problem}");
        assert!(
            got.contains(want) && !got.contains("SECRET"),
            "{text}: {got}"
        );
    }
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

/// Returns what a cloud of a file is read as.
fn from_text(cloud: &str) -> Result<CloudConfig, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clouds.yaml");
    let auth = "auth: {auth_url: 'https://k.test', username: u, password: p, project_id: p}";
    std::fs::write(&path, format!("clouds:\n  c:\n    {auth}\n    {cloud}\n")).unwrap();
    let variables = [("OS_CLIENT_CONFIG_FILE", path.to_str().unwrap())];
    from_cloud(Some("c"), None, &env(&variables))
}

#[test]
fn number_that_is_read_as_another_text_is_a_warning() {
    for (password, warns) in [
        ("0123", true),
        ("1.50", true),
        ("1_000", true),
        ("12:30", true),
        ("123", false),
        ("1.5", false),
        ("'0123'", false),
        ("0o17", false),
        ("x", false),
    ] {
        let cloud = from_text(&format!("password: {password}")).unwrap();
        // The one of `auth` takes precedence; both are checked.
        let warnings: Vec<&str> = cloud.notices.iter().map(|notice| &*notice.text).collect();
        assert_eq!(
            warnings.len(),
            usize::from(warns),
            "{password}: {warnings:?}"
        );
        if warns {
            let want = "clouds.yaml:4: cloud c: `password`: is a number in YAML";
            assert!(warnings[0].contains(want), "{warnings:?}");
        }
    }
}

/// keystoneauth replaces it by the project of the token, which the gateway appends itself.
#[test]
fn placeholder_of_the_project_is_not_part_of_an_endpoint() {
    for (end, want) in [
        ("", Ok("https://h.test/v1")),
        ("/", Ok("https://h.test/v1/")),
        ("/%(project_id)s", Ok("https://h.test/v1")),
        ("/%(tenant_id)s/", Ok("https://h.test/v1")),
        ("/$(project_id)s", Ok("https://h.test/v1")),
        (
            "/%(user_id)s",
            Err("has a placeholder that is not read: `%(user_id)s`"),
        ),
        (
            "/%(project_id)s/x",
            Err("has a placeholder that is not read: `%(project_id)s`"),
        ),
    ] {
        let read = from_text(&format!(
            "orchestration_endpoint_override: 'https://h.test/v1{end}'"
        ));
        let read = read.map(|config| config.endpoint_override.unwrap().to_string());
        match want {
            Ok(want) => assert_eq!(read.as_deref(), Ok(want), "{end}"),
            Err(want) => {
                let problem = read.unwrap_err();
                assert!(problem.contains(want), "{problem}");
                assert!(problem.contains("clouds.yaml:4: cloud c: `orchestration_endpoint_o"));
            }
        }
    }
}

#[test]
fn empty_values_are_absent() {
    for cloud in [
        "verify:",
        "region_name: ''",
        "region_name:",
        "profile: ''",
        "cloud: ' '",
    ] {
        let config = from_text(cloud).unwrap_or_else(|problem| panic!("{cloud}: {problem}"));
        assert!(config.verify && config.keystone.region.is_none(), "{cloud}");
        assert_eq!(config.notices, [], "{cloud}");
    }
}

#[test]
fn words_of_other_tools_have_a_suggestion() {
    for (cloud, want) in [
        (
            "heat_endpoint_override: 'https://h.test'",
            "`heat_endpoint_override`: unknown key, did you mean orchestration_endpoint_override?",
        ),
        (
            "heat_interface: admin",
            "did you mean orchestration_interface?",
        ),
        ("reigon_name: R", "did you mean region_name?"),
    ] {
        let config = from_text(cloud).unwrap();
        assert_eq!(config.notices.len(), 1, "{cloud}");
        assert!(
            config.notices[0].text.ends_with(want),
            "{:?}",
            config.notices
        );
    }
    for (key, want) in [
        ("user", "username"),
        ("login", "username"),
        ("project", "project_name"),
        ("tenant", "project_name"),
    ] {
        let hint = format!(", did you mean {want}?");
        assert_eq!(keys::meaning(key, true), keys::Meaning::Unknown(hint));
    }
    let old = from_text("identity_api_version: 2").unwrap_err();
    assert!(
        old.contains("clouds.yaml:4: cloud c: `identity_api_version`: Keystone v2"),
        "{old}"
    );
}

/// Returns a user or project; an id has no domain.
fn subject(value: &Named) -> String {
    named(value).trim_end_matches('@').to_owned()
}

/// Returns what a cloud is read as, in the form of `tests/openstacksdk/clouds.py`.
fn reading(config: &CloudConfig) -> String {
    let keystone = &config.keystone;
    let project = || keystone.project.as_ref().map_or("-".into(), subject);
    let login = match &keystone.identity {
        Identity::Password { user, password } => {
            format!(
                "{} {} {}",
                subject(user),
                password.expose_secret(),
                project()
            )
        }
        Identity::ApplicationCredential {
            id_or_name: credential,
            user,
            secret,
        } => {
            let user = user.as_ref().map(|user| format!(" of {}", subject(user)));
            let credential = id_or_name(credential);
            let user = user.unwrap_or_default();
            format!("credential {credential}{user} {} -", secret.expose_secret())
        }
        Identity::Token(token) => format!("token {} {}", token.expose_secret(), project()),
    };
    let trimmed = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
    let verify = match (&config.cacert, config.verify) {
        (Some(path), true) => path.display().to_string(),
        (_, verify) => verify.to_string(),
    };
    format!(
        "{login} {} {} {} {} {verify}",
        trimmed(&keystone.auth_url),
        keystone.region.as_deref().unwrap_or("-"),
        keystone.interfaces.join(","),
        config
            .endpoint_override
            .as_ref()
            .map_or("-".into(), trimmed),
    )
}

/// The second test stage compares the readings with openstacksdk. `UPDATE_READINGS=1` writes
/// the table.
#[test]
fn clouds_of_real_looking_files_are_read_as_by_openstacksdk() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clouds");
    let table = root.join("readings.tsv");
    let root = root.to_str().unwrap();
    let mut rows = vec!["file\tcloud\treading\twarnings".to_owned()];
    let files = [
        "openstack/clouds.yaml",
        "files/duplicates.yaml",
        "files/clouds.json",
        "files/variants.yaml",
    ];
    for file in files {
        let path = format!("{root}/{file}");
        let mut variables = vec![("HOME", "/home/me"), ("XDG_CONFIG_HOME", root)];
        if file.starts_with("files") {
            variables.push(("OS_CLIENT_SECURE_FILE", "/dev/null"));
        }
        variables.push(("OS_CLIENT_CONFIG_FILE", &path));
        let env = env(&variables);
        let clouds = member(Path::new(&path), "clouds", &mut Vec::new()).unwrap();
        let clouds = clouds.unwrap();
        for (cloud, _) in clouds.iter() {
            let read = from_cloud(Some(cloud), None, &env);
            let (reading, notices) = match read {
                Ok(config) => (reading(&config), config.notices),
                Err(problem) => (format!("error: {problem}"), Vec::new()),
            };
            let warnings = notices.iter().filter(|notice| notice.is_warning);
            let warnings: Vec<&str> = warnings.map(|notice| &*notice.text).collect();
            let row = [
                file.rsplit('/').next().unwrap(),
                cloud,
                &reading,
                &warnings.join("; "),
            ];
            let row = row.join("\t").replace(&format!("{root}/"), "");
            rows.push(row.trim_end().to_owned());
        }
    }
    let got = rows.join("\n") + "\n";
    if std::env::var_os("UPDATE_READINGS").is_some() {
        std::fs::write(&table, &got).unwrap();
    }
    let want = std::fs::read_to_string(&table).unwrap();
    for (got, want) in got.lines().zip(want.lines()) {
        assert_eq!(got, want);
    }
    assert_eq!(got.lines().count(), want.lines().count());
}
