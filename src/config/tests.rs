use std::fs;

use secrecy::ExposeSecret;

use super::*;
use crate::credentials::{IdOrName, Identity, RackspaceSecret};

mod places;

const HEAT: &str = "[[upstream]]\nname='a'\nfamily='heat'\nendpoint='https://a.test'\n";

fn no_env(_: &str) -> Option<String> {
    None
}

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2".to_owned()),
        "EMPTY" => Some(" ".to_owned()),
        _ => None,
    }
}

/// Reads a file. The schema accepts each one that is valid.
fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let config = Config::parse(
        "d.toml",
        text,
        Path::new("/nonexistent"),
        Config::empty(),
        &env,
    );
    if config.is_ok() {
        assert_eq!(schema::tests::problem_of(text), None, "{text}");
    }
    config
}

/// Returns the problems of an invalid file, one line each.
fn problems_of(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Returns the problems of an invalid `[upstream.auth]`.
fn problems_of_auth(auth: &str) -> Vec<String> {
    problems_of(&format!("{HEAT}[upstream.auth]\n{auth}"))
}

fn auth(auth: &str) -> Auth {
    let text = format!("{HEAT}[upstream.auth]\n{auth}");
    match parse(&text) {
        Ok(mut config) => config.upstreams.remove(0).auth,
        Err(problems) => panic!("{auth}: {problems:?}"),
    }
}

#[test]
fn example_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("drawbridge.example.toml");
    let env = |name: &str| match name {
        "NORTH_PASSWORD" | "STAGE_SECRET_KEY" => Some("secret".to_owned()),
        _ => None,
    };
    let config = Config::load(&path, &env).expect("the example is right");
    let names: Vec<&str> = config.upstreams.iter().map(|u| &*u.name).collect();
    assert_eq!(names, ["north", "stage", "ao"]);
    assert_eq!(config.server, ServerOptions::default());
    assert_eq!(config.log, telemetry::Settings::default());
}

#[test]
fn defaults_of_the_example_are_the_real_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("drawbridge.example.toml");
    let text = fs::read_to_string(path).expect("the example");
    let numbers = |line: &str| {
        let (key, value) = line.strip_prefix("# ")?.split_once(" = ")?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (is_key && value.parse::<u64>().is_ok()).then(|| line[2..].to_owned())
    };
    let uncommented: Vec<String> = text
        .lines()
        .map(|line| numbers(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    let env = |_: &str| Some("secret".to_owned());
    let read = |text: &str| {
        let mut config = Config::parse(
            "d.toml",
            text,
            Path::new(""),
            Config::empty(),
            &|name: &str| {
                (!name.starts_with("DRAWBRIDGE_") && name != "RUST_LOG")
                    .then(|| env(name))
                    .flatten()
            },
        )
        .expect("right");
        config
            .upstreams
            .iter_mut()
            .for_each(|u| u.auth = Auth::None);
        // That of the text.
        config.digest = [0; 32];
        format!("{config:?}")
    };
    let changed = uncommented.join("\n");
    assert_ne!(changed.trim(), text.trim());
    assert_eq!(read(&changed), read(&text));
}

#[test]
fn sandbox_needs_no_file() {
    let config = Config::load_sandbox(None, Overlay::default(), &no_env).expect("the sandbox");
    assert!(config.sandbox && config.upstreams.is_empty());
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(
        config.admin.map(|a| a.to_string()).as_deref(),
        Some("127.0.0.1:50052")
    );
}

#[test]
fn variables_take_precedence_over_the_file() {
    let env = |name: &str| {
        let value = match name {
            "DRAWBRIDGE_LISTEN" => "127.0.0.1:1",
            "DRAWBRIDGE_ADMIN" => "off",
            "DRAWBRIDGE_LOG" => "debug",
            "DRAWBRIDGE_LOG_FORMAT" => "json",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let text = "[listen]\ngrpc='127.0.0.1:2'\nadmin='127.0.0.1:3'\n[log]\nlevel='warn'\n";
    let text = &format!("{text}{HEAT}");
    let config =
        Config::parse("d.toml", text, Path::new(""), Config::empty(), &env).expect("right");
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.admin, None);
    assert_eq!((config.log.json, &*config.log.level), (true, "debug"));

    let env = |name: &str| name.starts_with("DRAWBRIDGE_").then(|| "what".to_owned());
    let problems =
        Config::parse("d.toml", HEAT, Path::new(""), Config::empty(), &env).expect_err("wrong");
    let reported: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        reported,
        [
            "environment: DRAWBRIDGE_LISTEN: must be an IP address and a port, like 127.0.0.1:50051",
            "environment: DRAWBRIDGE_ADMIN: must be off, or an address like 127.0.0.1:50052",
            "environment: DRAWBRIDGE_LOG: `what` is not a level; write one of off, error, warn, \
             info, debug, trace, or a filter like `drawbridge::watch=debug,info`",
            "environment: DRAWBRIDGE_LOG_FORMAT: must be text or json",
        ]
    );
}

#[test]
fn admin_off_removes_the_default_of_the_sandbox() {
    let text = "[listen]\nadmin = 'off'\n";
    let config = Config::parse("d.toml", text, Path::new(""), Config::sandbox(), &|_| None);
    assert_eq!(config.expect("right").admin, None);
}

#[test]
fn missing_file_is_reported() {
    let path = Path::new("/nonexistent/d.toml");
    let problems = Config::load(path, &no_env).expect_err("no file");
    let reported = problems[0].to_string();
    assert!(
        reported.starts_with("/nonexistent/d.toml: cannot be read: No such file"),
        "{reported}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "[listen]\ngrpc = 'localhost'\nport = 1\n\n[server]\nmax_concurrent_streams = 'many'\n\
                drain_timeout_sec = 3\n[log]\nformat = 'jsn'\n[[upstream]]\nname = 'a b'\n\
                family = 'heat'\nendpoint = 'https://a.test/?x=1'\ndefault = 1\n\
                [upstream.auth]\nkind = 'basic'\npasword = 'x'\n";
    assert_eq!(
        problems_of(text),
        [
            "d.toml:2: listen.grpc: must be an IP address and a port, like 127.0.0.1:50051",
            "d.toml:3: listen.port: unknown key",
            "d.toml:6: server.max_concurrent_streams: must be an integer, is a string",
            "d.toml:7: server.drain_timeout_sec: unknown key, did you mean drain_timeout_secs?",
            "d.toml:9: log.format: must be one of text, json, did you mean json?",
            "d.toml:11: upstream.name: must be 1 to 64 letters, digits, '-', '_' or '.'",
            "d.toml:13: upstream.endpoint: must not have a query or a fragment",
            "d.toml:14: upstream.default: must be true or false, is an integer",
            "d.toml:15: upstream.auth.username: is missing",
            "d.toml:15: upstream.auth.password_env: is missing: set it to the name of a \
             variable, or password_file to a file",
            "d.toml:17: upstream.auth.pasword: unknown key, did you mean password_env?",
        ]
    );
}

#[test]
fn problems_after_a_syntax_error_are_reported() {
    let reported = problems_of("[listen\ngrpc = \n[log]\nlevel = 3\n");
    assert!(
        reported.iter().any(|line| line.starts_with("d.toml:1: ")),
        "{reported:?}"
    );
    assert!(
        reported.contains(&"d.toml:4: log.level: must be a string in quotes, is an integer".into()),
        "{reported:?}"
    );
}

#[test]
fn each_problem_has_line_key_and_hint() {
    let two = |more: &str| format!("{HEAT}{HEAT}{more}").replacen("name='a'", "name='b'", 1);
    for (text, want) in [
        (
            String::new(),
            "d.toml: has no upstream: add an [[upstream]]",
        ),
        (
            "upstream = 3".into(),
            "d.toml:1: upstream: must be an array of tables, [[upstream]]",
        ),
        (
            "listen = 3".into(),
            "d.toml:1: listen: must be a table, [listen]",
        ),
        (
            "wach = 3".into(),
            "d.toml:1: wach: unknown key, did you mean watch?",
        ),
        (
            format!("{HEAT}{HEAT}"),
            "d.toml:6: upstream.name: another upstream has the name a too",
        ),
        (
            two("").replace("family", "default=true\nfamily"),
            "d.toml:8: upstream.default: upstream b is already the default of heat",
        ),
        (
            HEAT.replace("heat", "het"),
            "d.toml:3: upstream.family: the family het does not exist, did you mean heat?",
        ),
        (
            format!("{HEAT}dialect='rack'"),
            "d.toml:5: upstream.dialect: the family heat has the dialects openstack, rts, rackspace",
        ),
        (
            format!("{HEAT}dialect='x'").replace("heat", "jp1ao"),
            "d.toml:5: upstream.dialect: the family jp1ao has the dialects v12, v11, v10",
        ),
        (
            HEAT.replace("https://a", "ftp://a"),
            "d.toml:4: upstream.endpoint: must begin with https:// or http://",
        ),
        (
            HEAT.replace("https://a", "https://u:p@a"),
            "d.toml:4: upstream.endpoint: must not contain credentials",
        ),
        (
            "[[upstream]]\nname='a'\nfamily='heat'\n".into(),
            "d.toml:1: upstream.endpoint: is missing",
        ),
        (
            format!("{HEAT}max_attempts=0"),
            "d.toml:5: upstream.max_attempts: must be from 1 to 10",
        ),
        (
            format!("{HEAT}read_timeout_secs=0"),
            "d.toml:5: upstream.read_timeout_secs: must be from 0.001 to 31536000 seconds",
        ),
        (
            format!("{HEAT}ca_file='ca.pem'"),
            "d.toml:5: upstream.ca_file: the file /nonexistent/ca.pem does not exist",
        ),
        (
            format!("{HEAT}ca_file='/'"),
            "d.toml:5: upstream.ca_file: / is a directory: name a file in it",
        ),
        (
            format!("{HEAT}[[descriptors]]\nfile='my.binpb'"),
            "d.toml:6: descriptors.file: the file /nonexistent/my.binpb does not exist",
        ),
        (
            format!("{HEAT}[[descriptors]]\n"),
            "d.toml:5: descriptors.file: is missing",
        ),
        (
            format!("{HEAT}[listen.tls]\ncert_file='c.pem'"),
            "d.toml:5: listen.tls.key_file: is missing",
        ),
    ] {
        let reported = problems_of(&text);
        assert!(reported[0].starts_with(want), "{text}: {reported:#?}");
    }
}

#[test]
fn secrets_in_the_file_are_rejected_and_not_printed() {
    for (auth, want) in [
        (
            "kind='basic'\nusername='u'\npassword='hunter2'",
            "upstream.auth.password: must not be in this file because it is a secret: use \
             password_env or password_file",
        ),
        (
            "kind='basic'\nusername='u'\npassword_env='SECRET'\npassword_file='x'",
            "upstream.auth.password_file: conflicts with password_env: remove one of them",
        ),
        (
            "kind='basic'\nusername='u'\npassword_env='MISSING'",
            "upstream.auth.password_env: the variable MISSING is not set, or empty",
        ),
        (
            "kind='basic'\nusername='u'\npassword_env='EMPTY'",
            "upstream.auth.password_env: the variable EMPTY is not set, or empty",
        ),
        (
            "kind='token'\ntoken_file='token'",
            "upstream.auth.token_file: the file /nonexistent/token does not exist",
        ),
    ] {
        let reported = problems_of_auth(auth);
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(reported[0].ends_with(want), "{reported:?}");
        assert!(!reported[0].contains("hunter2"));
    }
    let config = parse(&format!(
        "{HEAT}[upstream.auth]\nkind='basic'\nusername='u'\npassword_env='SECRET'"
    ));
    let debug = format!("{:?}", config.expect("right"));
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn all_kinds_of_credentials_are_read() {
    assert!(matches!(auth(""), Auth::Passthrough));
    assert!(matches!(auth("kind='none'"), Auth::None));
    match auth("kind='token'\ntoken_env='SECRET'\nheader='X-Key'") {
        Auth::Token { header, token } => {
            assert_eq!(
                (header.as_str(), token.expose_secret()),
                ("x-key", "hunter2")
            );
        }
        other => panic!("{other:?}"),
    }
    let jp1ao = HEAT.replace("heat", "jp1ao");
    let hsso = "[upstream.auth]\nkind='hsso'\nusername='u'\npassword_env='SECRET'";
    let mut config = parse(&format!("{jp1ao}{hsso}")).expect("right");
    match config.upstreams.remove(0).auth {
        Auth::Hsso { username, .. } => assert_eq!(username, "u"),
        other => panic!("{other:?}"),
    }
    match auth("kind='rackspace'\nusername='u'\napi_key_env='SECRET'\nregion='ORD'") {
        Auth::Rackspace(login) => {
            assert!(matches!(login.secret, RackspaceSecret::ApiKey(_)));
            assert_eq!(
                login.auth_url.as_str(),
                "https://identity.api.rackspacecloud.com/v2.0"
            );
        }
        other => panic!("{other:?}"),
    }
    match auth("kind='ak_sk'\naccess_key='AK'\nsecret_key_env='SECRET'\nproject_id='p'") {
        Auth::AkSk(keys) => assert_eq!(keys.project_id.as_deref(), Some("p")),
        other => panic!("{other:?}"),
    }
    let keystone = "kind='keystone'\nauth_url='https://k.test/v3'\n";
    let password = "username='u'\npassword_env='SECRET'\nproject_name='demo'";
    match auth(&format!("{keystone}{password}")) {
        Auth::Keystone(login) => {
            assert_eq!(login.interfaces, ["public"]);
            let project = login.project.expect("a project");
            assert!(matches!(project.id_or_name, IdOrName::Name(name) if name == "demo"));
            assert!(matches!(project.domain, Some(IdOrName::Id(id)) if id == "default"));
        }
        other => panic!("{other:?}"),
    }
    // Huawei IAM: the project of a region has the name of the region, in the user's domain.
    let stage = HEAT.replace("'heat'", "'servicestage'");
    for (domain, want) in [("", false), ("project_domain_name='D'\n", true)] {
        let text = format!("{stage}[upstream.auth]\n{keystone}{domain}{password}");
        let config = parse(&text).expect("right");
        let Auth::Keystone(login) = &config.upstreams[0].auth else {
            panic!("{text}");
        };
        let Identity::Password { user, .. } = &login.identity else {
            panic!("{text}");
        };
        assert!(user.domain.is_some(), "{text}");
        let project = login.project.as_ref().expect("a project");
        assert_eq!(project.domain.is_some(), want, "{text}");
    }
    let app = "application_credential_id='i'\napplication_credential_secret_env='SECRET'";
    match auth(&format!("{keystone}{app}")) {
        Auth::Keystone(login) => {
            assert!(login.project.is_none());
            assert!(matches!(
                login.identity,
                Identity::ApplicationCredential { .. }
            ));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn contradictory_credentials_are_rejected() {
    let keystone = "kind='keystone'\nauth_url='https://k.test/v3'\n";
    for (auth, want) in [
        (
            "kind='basik'".to_owned(),
            "auth.kind: must be one of passthrough, none",
        ),
        (
            "kind='none'\nusername='u'".into(),
            "auth.username: unknown key",
        ),
        ("kind='keystone'\n".into(), "auth.auth_url: is missing"),
        (
            format!(
                "{keystone}project_name='p'\nusername='u'\npassword_env='SECRET'\ntoken_env='SECRET'"
            ),
            "auth.password_env: conflicts with token: remove one of them",
        ),
        (
            format!("{keystone}project_name='p'\nusername='u'\ntoken_env='SECRET'"),
            "auth.token_env: determines the user: remove username and user_id",
        ),
        (
            format!("{keystone}username='u'\npassword_env='SECRET'"),
            "auth.project_name: is missing",
        ),
        (
            format!("{keystone}project_name='p'\nproject_id='i'\ntoken_env='SECRET'"),
            "auth.project_name: conflicts with project_id: remove one of them",
        ),
        (
            format!(
                "{keystone}project_name='p'\napplication_credential_id='i'\napplication_credential_secret_env='SECRET'"
            ),
            "auth.application_credential_id: determines the project",
        ),
        (
            "kind='keystone'\nfrom_env=true".into(),
            "auth.from_env: no OS_* variables are set",
        ),
        (
            "cloud='c'\nfrom_env=true".into(),
            "auth.from_env: conflicts with cloud: remove one of them",
        ),
        (
            "kind='ak_sk'\naccess_key='a'".into(),
            "auth.secret_key_env: is missing",
        ),
        (
            "kind='token'\ntoken_env='SECRET'\nheader='Host'".into(),
            "auth.header: belongs to the connection or the message",
        ),
        (
            "kind='token'\ntoken_env='SECRET'\nheader='transfer-encoding'".into(),
            "auth.header: belongs to the connection or the message",
        ),
        (
            "kind='token'\ntoken_env='SECRET'\nheader='X-Request-Id'".into(),
            "auth.header: belongs to the connection or the message, or the gateway sends it itself",
        ),
        (
            "kind='token'\ntoken_env='SECRET'\nheader='traceparent'".into(),
            "auth.header: belongs to the connection or the message, or the gateway sends it itself",
        ),
        (
            "kind='token'\ntoken_env='SECRET'\nheader='a b'".into(),
            "auth.header: is not a header name",
        ),
    ] {
        let reported = problems_of_auth(&auth);
        assert!(
            reported.iter().any(|line| line.contains(want)),
            "{auth}: {reported:#?}"
        );
    }
}

#[test]
fn keys_of_another_place_or_kind_have_a_hint() {
    for (more, want) in [
        (
            "cloud='north'",
            "d.toml:5: upstream.cloud: unknown key: it belongs to [upstream.auth]: auth = { cloud",
        ),
        (
            "region='R'",
            "d.toml:5: upstream.region: unknown key: it belongs to [upstream.auth], as region",
        ),
        (
            "region_name='R'",
            "d.toml:5: upstream.region_name: unknown key: it belongs to [upstream.auth], as region",
        ),
        (
            "password='x'",
            "d.toml:5: upstream.password: unknown key: secrets belong to [upstream.auth], as \
             password_env or password_file",
        ),
        (
            "url='https://a.test'",
            "d.toml:5: upstream.url: unknown key: did you mean endpoint?",
        ),
        (
            "endpont='https://a.test'",
            "d.toml:5: upstream.endpont: unknown key, did you mean endpoint?",
        ),
        (
            "auth={kind='keystone',auth_url='https://k.test',token_env='SECRET',project_id='p',region_name='R'}",
            "d.toml:5: upstream.auth.region_name: unknown key: did you mean region?",
        ),
        (
            "auth={kind='basic',username='u',password_env='SECRET',api_key_env='SECRET'}",
            "d.toml:5: upstream.auth.api_key_env: unknown key: it is a key of kind = rackspace",
        ),
        (
            "auth={kind='none',endpoint='https://a.test'}",
            "d.toml:5: upstream.auth.endpoint: unknown key: it belongs to [[upstream]]",
        ),
        (
            "auth={kind='none',auth_type='password'}",
            "d.toml:5: upstream.auth.auth_type: unknown key: did you mean kind?",
        ),
    ] {
        let reported = problems_of(&format!("{HEAT}{more}"));
        assert_eq!(reported.len(), 1, "{more}: {reported:#?}");
        assert!(reported[0].starts_with(want), "{more}: {reported:#?}");
    }
}

#[test]
fn endpoint_is_optional_with_a_catalog() {
    let text = "[[upstream]]\nname='a'\nfamily='heat'\n[upstream.auth]\nkind='keystone'\n\
                auth_url='https://k.test'\nusername='u'\npassword_env='SECRET'\nproject_id='p'";
    let upstream = parse(text).expect("right").upstreams.remove(0);
    assert!(upstream.endpoint.is_none());
    // IAM's catalog does not contain ServiceStage.
    let reported = problems_of(&text.replace("heat", "servicestage"));
    assert!(
        reported[0].contains("upstream.endpoint: is missing"),
        "{reported:?}"
    );
}

#[test]
fn clouds_yaml_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let clouds = directory.path().join("clouds.yaml");
    let yaml = "clouds:\n  south:\n    auth:\n      auth_url: https://k.test/v3\n      \
                username: u\n      password: hunter2\n      project_id: p1\n      \
                user_domain_name: Default\n    region_name: R1\n";
    fs::write(&clouds, yaml).expect("written");
    let env = |name: &str| (name == "OS_CLIENT_CONFIG_FILE").then(|| clouds.display().to_string());
    let text = "[[upstream]]\nname='a'\nfamily='heat'\nauth={cloud='south'}\n";
    let config =
        Config::parse("d.toml", text, Path::new(""), Config::empty(), &env).expect("right");
    match &config.upstreams[0].auth {
        Auth::Keystone(login) => assert_eq!(login.region.as_deref(), Some("R1")),
        other => panic!("{other:?}"),
    }
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    // `OS_CLOUD` alone, with and without a kind.
    let cloud_env = |name: &str| match name {
        "OS_CLOUD" => Some("south".to_owned()),
        name => env(name),
    };
    for auth in [
        "{from_env=true}",
        "{kind='keystone',from_env=true,region='R2'}",
    ] {
        let text = text.replace("{cloud='south'}", auth);
        let config = Config::parse("d.toml", &text, Path::new(""), Config::empty(), &cloud_env);
        match &config.expect("right").upstreams[0].auth {
            Auth::Keystone(login) => {
                let want = if auth.contains("R2") { "R2" } else { "R1" };
                assert_eq!(login.region.as_deref(), Some(want));
            }
            other => panic!("{other:?}"),
        }
    }
    // The login is that of the cloud, and only that.
    let with_user = text.replace("'south'", "'south',username='me',interface='internal'");
    let problems = Config::parse("d.toml", &with_user, Path::new(""), Config::empty(), &env)
        .expect_err("two logins");
    let reported: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let want = "d.toml:4: upstream.auth.username: is that of the cloud south of clouds.yaml: remove \
                the key, or set the complete login here";
    assert_eq!(reported, [want]);
    fs::write(&clouds, yaml.replace("region_name", "reigon_name")).expect("written");
    let config = Config::parse("d.toml", text, Path::new(""), Config::empty(), &env);
    let warnings = config.expect("right").warnings;
    let warning = warnings[0].to_string();
    assert!(warning.ends_with("did you mean region_name?"), "{warning}");
    let text = text.replace("south", "west");
    let problems =
        Config::parse("d.toml", &text, Path::new(""), Config::empty(), &env).expect_err("no west");
    let reported = problems[0].to_string();
    assert!(
        reported.starts_with("d.toml:4: upstream.auth.cloud: "),
        "{reported}"
    );
}

#[test]
fn files_of_credentials_can_be_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let cloud = |password: &str| {
        format!(
            "clouds: {{c: {{auth: {{auth_url: 'https://k.test', username: u, project_id: p, \
             password: {password}}}}}}}"
        )
    };
    write("token", "first\n");
    let clouds = write("clouds.yaml", &cloud("first"));
    let env = |name: &str| match name {
        "OS_CLIENT_CONFIG_FILE" => Some(clouds.clone()),
        "SECRET" => Some("hunter2".to_owned()),
        _ => None,
    };
    let text = "[[upstream]]\nname='a'\nfamily='heat'\nauth={cloud='c'}\n\
                [[upstream]]\nname='b'\nfamily='heat'\nendpoint='https://a.test'\n\
                auth={kind='token',token_file='token'}\n\
                [[upstream]]\nname='c'\nfamily='heat'\nendpoint='https://a.test'\n\
                auth={kind='token',token_env='SECRET'}\n";
    let config = Config::parse("d.toml", text, directory.path(), Config::empty(), &env);
    let upstreams = config.expect("right").upstreams;
    let secrets = || {
        let sources = upstreams.iter().filter_map(|u| u.auth_source.as_ref());
        let secret = |settings: Auth| match settings {
            Auth::Token { token, .. } => token.expose_secret().to_owned(),
            Auth::Keystone(login) => match login.identity {
                Identity::Password { password, .. } => password.expose_secret().to_owned(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let secrets = sources.map(|source| source.read().map(secret));
        secrets.collect::<Vec<_>>()
    };
    let both = |secret: &str| vec![Ok(secret.to_owned()), Ok(secret.to_owned())];
    assert_eq!(secrets(), both("first"));
    write("token", "second");
    write("clouds.yaml", &cloud("second"));
    assert_eq!(secrets(), both("second"));
    write("token", " ");
    let problem = secrets().remove(1).expect_err("empty");
    assert!(problem.contains("upstream.auth.token_file: "), "{problem}");
}

#[test]
fn clients_must_be_authenticated_beyond_loopback() {
    let directory = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    write("tokens", "# of the build farm\nhunter2\n\n  second  \n");
    write("none", "# none yet\n");
    let own = rcgen::generate_simple_self_signed(["gateway".to_owned()]).expect("a certificate");
    write("pem", &own.cert.pem());
    write("key", &own.signing_key.serialize_pem());
    let parse = |text: &str| Config::parse("d.toml", text, directory.path(), Config::empty(), &env);
    let listen = "[listen]\ngrpc='0.0.0.0:50051'\n";
    let basic = format!("{HEAT}auth={{kind='basic',username='u',password_env='SECRET'}}\n");
    let tls = "[listen.tls]\ncert_file='pem'\nkey_file='key'\n";

    let problems = parse(&format!("{listen}{basic}")).expect_err("clients are not authenticated");
    let reported = problems[0].to_string();
    assert!(
        reported
            .starts_with("d.toml:1: listen: any client that reaches 0.0.0.0:50051 could use the"),
        "{reported}"
    );
    assert!(
        parse(&format!("{listen}{tls}{basic}")).is_err(),
        "TLS alone authenticates no client"
    );

    let own = parse(&format!("{listen}{HEAT}")).expect("clients send their own credentials");
    assert!(own.client_tokens.is_empty());
    assert!(
        own.has_plaintext_tokens(),
        "passthrough tokens are plaintext"
    );
    let with_tls = parse(&format!("{listen}{tls}{HEAT}")).expect("TLS");
    assert!(!with_tls.has_plaintext_tokens());
    let tokens = format!("{listen}[listen.clients]\ntokens_file='tokens'\n{basic}");
    let config = parse(&tokens).expect("tokens");
    assert_eq!(config.client_tokens, ["hunter2".into(), "second".into()]);
    assert!(config.has_plaintext_tokens());
    let on_loopback =
        Config::parse("d.toml", HEAT, directory.path(), Config::empty(), &env).expect("loopback");
    assert!(!on_loopback.has_plaintext_tokens());
    let short: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(
        short[0].contains("listen.clients.tokens_file: the token in line "),
        "{short:?}"
    );
    assert!(
        short
            .iter()
            .all(|warning| warning.contains("is shorter than 16")),
        "{short:?}"
    );
    for token in [
        "a secret with blanks",
        "geheimnis-mit-\u{fc}",
        "0123456789abcdef # comment",
    ] {
        std::fs::write(
            directory.path().join("unusable"),
            format!("# one\n{token}\n"),
        )
        .unwrap();
        let unusable = format!("{listen}[listen.clients]\ntokens_file='unusable'\n{basic}");
        let problems = parse(&unusable).expect_err(token);
        let want = "listen.clients.tokens_file: line 2 of the file is no token";
        assert!(problems[0].to_string().contains(want), "{problems:?}");
        assert!(!problems[0].to_string().contains(token), "{problems:?}");
    }
    let mutual = format!("{listen}{tls}client_ca_file='pem'\n{basic}");
    assert!(parse(&mutual).expect("mTLS").tls.is_some());
    let none = format!("{listen}[listen.clients]\ntokens_file='none'\n{basic}");
    let problems = parse(&none).expect_err("no token");
    let reported: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let want = "d.toml:4: listen.clients.tokens_file: has no token: write one per line";
    assert!(reported.contains(&want.to_owned()), "{reported:?}");
}

#[test]
fn own_families_need_descriptors() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("my.binpb"), b"\x0a\x00").expect("written");
    let text = format!("{HEAT}dialect='any'\n[[descriptors]]\nfile='my.binpb'\n");
    let text = text.replace("'heat'", "'mine.v1'");
    let config =
        Config::parse("d.toml", &text, directory.path(), Config::empty(), &env).expect("right");
    assert_eq!(config.upstreams[0].dialect, "any");
    assert_eq!(config.descriptors[0].name, "my.binpb");
    assert_eq!(config.descriptors[0].bytes, b"\x0a\x00");
}

#[test]
fn unknown_names_in_a_selection_are_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let set = crate::contract::BUILT_IN;
    fs::write(directory.path().join("my.binpb"), set).expect("written");
    let problems = |keys: &str| {
        let text = format!("{HEAT}[[descriptors]]\nfile='my.binpb'\n{keys}\n");
        let parsed = Config::parse("d.toml", &text, directory.path(), Config::empty(), &env);
        let problems = parsed.err().unwrap_or_default();
        let reported: Vec<String> = problems.iter().map(ToString::to_string).collect();
        reported.join("\n")
    };
    let service = "openstack.orchestration.v1.StackService";
    for (keys, want) in [
        (format!("include=['{service}']"), ""),
        (format!("include=['{service}/GetStack']"), ""),
        (format!("exclude=['{service}.GetStack', 'huaweicloud']"), ""),
        ("exclude=[]".to_owned(), ""),
        (
            "include=[]".to_owned(),
            "d.toml:7: descriptors.include: selects nothing: name an rpc, or remove the key",
        ),
        (
            "include='x'".to_owned(),
            "d.toml:7: descriptors.include: must be an array of strings in quotes, is a string",
        ),
        (
            "exclude=['a', 1]".to_owned(),
            "d.toml:7: descriptors.exclude: must be an array of strings in quotes, is an \
             integer\nd.toml:7: descriptors.exclude: a is not a package, a service or an rpc \
             of my.binpb",
        ),
        (
            "include=['StackService']".to_owned(),
            "d.toml:7: descriptors.include: StackService is not a package, a service or an rpc \
             of my.binpb, did you mean openstack.orchestration.v1.StackService?",
        ),
        (
            format!("include=[\n'{service}',\n'{service}.GetStak']"),
            "d.toml:9: descriptors.include: openstack.orchestration.v1.StackService.GetStak is \
             not a package, a service or an rpc of my.binpb, did you mean \
             openstack.orchestration.v1.StackService.GetStack?",
        ),
    ] {
        assert_eq!(problems(&keys), want, "{keys}");
    }
}

#[test]
fn invalid_tls_files_and_log_levels_are_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    let certificate = || rcgen::generate_simple_self_signed(["gateway".to_owned()]).expect("one");
    let (own, other) = (certificate(), certificate());
    write("cert", &own.cert.pem());
    write("key", &own.signing_key.serialize_pem());
    write("other", &other.signing_key.serialize_pem());
    write("words", "a certificate");
    write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    for (cert, key, ca, want) in [
        ("cert", "key", "cert", None),
        (
            "words",
            "key",
            "cert",
            Some("6: listen.tls.cert_file: contains no certificate in PEM"),
        ),
        (
            "cert",
            "words",
            "cert",
            Some("7: listen.tls.key_file: contains no private key in PEM"),
        ),
        (
            "cert",
            "encrypted",
            "cert",
            Some("7: listen.tls.key_file: is encrypted with a passphrase: decrypt it"),
        ),
        (
            "cert",
            "other",
            "cert",
            Some("7: listen.tls.key_file: does not match cert_file: "),
        ),
        (
            "cert",
            "key",
            "words",
            Some("8: listen.tls.client_ca_file: contains no certificate in PEM"),
        ),
        (
            "cert",
            "key",
            "key",
            Some("8: listen.tls.client_ca_file: contains no certificate in PEM"),
        ),
    ] {
        let text = format!(
            "{HEAT}[listen.tls]\ncert_file='{cert}'\nkey_file='{key}'\nclient_ca_file='{ca}'\n"
        );
        let got = Config::parse("d.toml", &text, directory.path(), Config::empty(), &env);
        match want {
            None => assert!(got.is_ok(), "{got:?}"),
            Some(want) => {
                let problems = got.expect_err(want);
                let reported = problems[0].to_string();
                assert!(
                    reported.starts_with(&format!("d.toml:{want}")),
                    "{reported}"
                );
            }
        }
    }
    let text = format!("{HEAT}[log]\nlevel='info,h2=loud'\n");
    let problems = Config::parse("d.toml", &text, directory.path(), Config::empty(), &env)
        .expect_err("no level");
    assert!(
        problems[0].to_string().contains("log.level: "),
        "{}",
        problems[0]
    );
}

#[test]
fn upstream_of_an_unknown_family_is_reported() {
    let mut config =
        Config::parse("d.toml", HEAT, Path::new("."), Config::empty(), &env).expect("good");
    assert!(config.contract().is_ok());
    config.upstreams[0].family = "hea".to_owned();
    let reported = config.contract().expect_err("no such family");
    assert_eq!(reported.len(), 1);
    assert!(
        reported[0].contains("no rpc has the family hea, did you mean heat?"),
        "{reported:?}"
    );
}

#[test]
fn sandbox_rejects_a_file_with_upstreams() {
    let sandbox =
        |text: &str| Config::parse("d.toml", text, Path::new(""), Config::sandbox(), &no_env);
    let config = sandbox("[listen]\ngrpc = '127.0.0.1:7'\n").expect("right");
    assert!(config.sandbox);
    assert_eq!(config.listen.port(), 7);
    let problems = sandbox(HEAT).expect_err("an upstream");
    assert!(
        problems[0].problem.contains("drawbridge serve"),
        "{problems:?}"
    );
    let problems = Config::parse("d.toml", "", Path::new(""), Config::empty(), &no_env)
        .expect_err("nothing to serve");
    assert!(
        problems[0].problem.contains("drawbridge sandbox"),
        "{problems:?}"
    );
}

#[test]
fn web_pages_are_allowed_by_origin_and_host() {
    let text = "[listen.web]\nallowed_origins = [\"https://ops.example.com\"]\n\
                allowed_hosts = [\"gateway.example.com\"]\nconnect_get = true\n";
    let config = parse(&format!("{text}{HEAT}")).unwrap();
    assert_eq!(config.web.allowed_origins, ["https://ops.example.com"]);
    assert_eq!(config.web.allowed_hosts, ["gateway.example.com"]);
    assert!(config.web.connect_get);
    assert_eq!(parse(HEAT).unwrap().web, WebOptions::default());
    for (key, problem) in [
        (
            "allowed_origins = [\"*\"]",
            "d.toml:2: listen.web.allowed_origins: name each origin",
        ),
        (
            "allowed_origins = [\"https://ops.example.com/\"]",
            "d.toml:2: listen.web.allowed_origins: `https://ops.example.com/` is not an origin: \
             write https://ops.example.com",
        ),
        (
            "allowed_origins = \"https://ops.example.com\"",
            "d.toml:2: listen.web.allowed_origins: must be an array of strings",
        ),
        (
            "allowed_hosts = [\"https://gateway\"]",
            "d.toml:2: listen.web.allowed_hosts: `https://gateway` is not a host name",
        ),
        (
            "connect_get = \"yes\"",
            "d.toml:2: listen.web.connect_get: must be true or false",
        ),
        (
            "allowed_origin = []",
            "d.toml:2: listen.web.allowed_origin: unknown key",
        ),
    ] {
        let problems = problems_of(&format!("[listen.web]\n{key}\n{HEAT}"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(problem), "{problems:?}");
    }
    let unused = format!("[listen.web]\nallowed_hosts = [\"gateway\"]\n{HEAT}");
    let unused = parse(&unused).unwrap();
    assert!(
        unused.warnings[0]
            .to_string()
            .contains("no browser may call")
    );
}
