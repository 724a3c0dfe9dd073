//! The files that an operator of OpenStack already has, tried with the binary against the
//! sandbox: downloads of Horizon, DevStack, kolla-ansible, profiles, secure.yaml and openrc. Half
//! of them are wrong: each message says what, where, and what to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use drawbridge_sandbox::{PROJECT_ID, Sandbox, Settings};
use serde_json::json;

use crate::drain::Serve;
use crate::support::Client;

/// The home directory of an operator, and the clouds in it.
struct Home {
    folder: tempfile::TempDir,
    keystone: String,
    heat: String,
    _sandbox: Sandbox,
}

impl Home {
    async fn new() -> Self {
        let address = ([127, 0, 0, 1], 0).into();
        let sandbox = Sandbox::start(address, Settings::default()).await.unwrap();
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
            keystone: sandbox.keystone_url().trim_end_matches("/v3").to_owned(),
            heat: format!(
                "{}/v1/{PROJECT_ID}",
                sandbox.keystone_url().split("/identity").next().unwrap()
            ),
            _sandbox: sandbox,
        };
        let openstack = home.folder.path().join(".config/openstack");
        std::fs::create_dir_all(&openstack).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/operator");
        for name in ["clouds.yaml", "secure.yaml", "clouds-public.yaml"] {
            let text = std::fs::read_to_string(fixtures.join(name)).unwrap();
            let text = text.replace("KEYSTONE", &home.keystone);
            std::fs::write(openstack.join(name), text).unwrap();
        }
        home
    }

    fn clouds(&self) -> PathBuf {
        self.folder.path().join(".config/openstack/clouds.yaml")
    }

    /// Returns the line of `clouds.yaml` that begins with a text, after another one.
    fn line(&self, cloud: &str, text: &str) -> usize {
        let file = std::fs::read_to_string(self.clouds()).unwrap();
        let lines: Vec<&str> = file.lines().collect();
        let start = lines.iter().position(|line| *line == format!("  {cloud}:"));
        let start = start.unwrap_or_else(|| panic!("{cloud}"));
        let found = lines[start..]
            .iter()
            .position(|line| line.trim().starts_with(text));
        start + 1 + found.unwrap_or_else(|| panic!("{text}"))
    }

    /// Runs `drawbridge check` with this login. Returns the exit code and the output.
    async fn check(&self, auth: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
        let upstream = "[[upstream]]\nname = \"north\"\nfamily = \"heat\"\n";
        let text = format!("{upstream}auth = {{ {auth} }}\n");
        std::fs::write(self.folder.path().join("d.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        command
            .args(["check", "--config", "d.toml"])
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .envs(env.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        for secret in ["sandbox-credential", "wr0ng", "hush"] {
            assert!(!text.contains(secret), "{text}");
        }
        (output.status.code(), text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clouds_that_are_right_are_checked_without_changes() {
    let home = Home::new().await;
    for (cloud, user) in [
        ("openstack", "demo@Default"),
        ("devstack", "demo@default"),
        (
            "appcred",
            "application credential 1acf51ab94b54a30b6596de5ae9fa89c",
        ),
        ("kolla-admin", "demo@Default"),
        ("kolla-admin-internal", "demo@Default"),
    ] {
        let (code, text) = home.check(&format!("cloud = '{cloud}'"), &[]).await;
        let want = format!(
            "north  OK  {user}, project demo, region RegionOne, {}",
            home.heat
        );
        assert!(text.contains(&want), "{cloud}: {want} is not in\n{text}");
        assert!(
            code == Some(0) && !text.contains("warning"),
            "{cloud}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clouds_that_are_wrong_say_what_where_and_what_to_do() {
    let home = Home::new().await;
    let file = home.clouds().display().to_string();
    let at =
        |cloud: &str, line: &str| format!("{file}:{}: cloud {cloud}: ", home.line(cloud, line));
    for (cloud, want) in [
        (
            "devstack-system-admin",
            vec![
                "d.toml:4: upstream.auth.cloud: ".to_owned(),
                at("devstack-system-admin", "system_scope"),
                "`auth.system_scope`: a token for the system has no project".to_owned(),
                "set project_name".to_owned(),
            ],
        ),
        (
            "kolla-admin-system",
            vec![at("kolla-admin-system", "system_scope")],
        ),
        (
            "acme",
            vec![
                format!(
                    "north  FAILED  the login was rejected at {} as user demo",
                    home.keystone
                ),
                "HTTP 401".to_owned(),
                "check user, secret, domain and project".to_owned(),
                format!(
                    "(login of cloud acme, {file}:{})",
                    home.line("acme", "acme:")
                ),
            ],
        ),
        (
            "federated",
            vec![
                at("federated", "auth_type"),
                "v3oidcpassword is not supported, because it logs in at another identity \
                 provider: use an application credential (`auth_type: v3applicationcredential`)\n"
                    .to_owned(),
            ],
        ),
        (
            "elsewhere",
            vec![
                format!("warning: {}", at("elsewhere", "reigon_name")),
                "`reigon_name`: unknown key, did you mean region_name?".to_owned(),
                "none in region RegionTwo: there is RegionOne (login of cloud elsewhere".to_owned(),
            ],
        ),
        (
            "vendor",
            vec![
                at("vendor", "profile"),
                "the vendor profile vexxhost is at https://vexxhost.com, which is not read: write \
                 its `auth_url` under `auth`"
                    .to_owned(),
            ],
        ),
        (
            "no-password",
            vec![
                at("no-password", "no-password"),
                "`auth.password` is missing: write it there, or in secure.yaml".to_owned(),
            ],
        ),
        (
            "devstak",
            vec![format!(
                "{file}: there is no cloud devstak, did you mean devstack? (of: "
            )],
        ),
    ] {
        let (code, text) = home.check(&format!("cloud = '{cloud}'"), &[]).await;
        assert_eq!(code, Some(1), "{cloud}: {text}");
        for part in want {
            assert!(text.contains(&part), "{cloud}: {part} is not in\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_an_openrc_file_are_read() {
    let home = Home::new().await;
    let openrc = [
        ("OS_AUTH_URL", &*home.keystone),
        ("OS_PROJECT_ID", PROJECT_ID),
        ("OS_PROJECT_NAME", "demo"),
        ("OS_USER_DOMAIN_NAME", "Default"),
        ("OS_PROJECT_DOMAIN_ID", "default"),
        ("OS_USERNAME", "demo"),
        ("OS_PASSWORD", "sandbox"),
        ("OS_REGION_NAME", "RegionOne"),
        ("OS_INTERFACE", "public"),
        ("OS_IDENTITY_API_VERSION", "3"),
    ];
    let without = |name: &str| -> Vec<(&str, &str)> {
        openrc
            .into_iter()
            .filter(|(variable, _)| *variable != name)
            .collect()
    };
    let with = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        without(name).into_iter().chain([(name, value)]).collect()
    };
    let missing = home.folder.path().join("none.yaml").display().to_string();
    let broken = home.folder.path().join("broken.yaml");
    std::fs::write(&broken, "clouds:\n  a:\n\tauth: {}\n").unwrap();
    let broken = broken.display().to_string();
    for (env, code, want) in [
        (
            openrc.to_vec(),
            0,
            "north  OK  demo@Default, project demo, region RegionOne, ",
        ),
        (
            vec![("OS_CLOUD", "devstack")],
            0,
            "north  OK  demo@default, project demo",
        ),
        (
            with("OS_CLOUD", "devstack"),
            0,
            "warning: OS_CLOUD names the cloud devstack, so that OS_AUTH_URL and other variables \
             of a login are ignored: unset OS_CLOUD, or the others",
        ),
        (
            without("OS_PASSWORD"),
            1,
            "d.toml:4: upstream.auth.from_env: OS_PASSWORD is missing: set it",
        ),
        (
            with("OS_PASSWORD", "wr0ng"),
            1,
            "check user, secret, domain and project (login of the OS_* variables)",
        ),
        (
            with("OS_AUTH_URL", "keystone.example.test:5000/v3"),
            1,
            "OS_AUTH_URL is not a URL: write https://host[:port]/path",
        ),
        (
            with("OS_REGION_NAME", "RegionTwo"),
            1,
            "none in region RegionTwo: there is RegionOne (login of the OS_* variables)",
        ),
        (
            Vec::new(),
            1,
            "d.toml:4: upstream.auth.from_env: no OS_* variables are set, for example \
             OS_AUTH_URL or OS_CLOUD",
        ),
        (
            vec![("OS_CLOUD", "x"), ("OS_CLIENT_CONFIG_FILE", &*missing)],
            1,
            "upstream.auth.from_env: OS_CLIENT_CONFIG_FILE: the file ",
        ),
        (
            vec![("OS_CLOUD", "a"), ("OS_CLIENT_CONFIG_FILE", &*broken)],
            1,
            "broken.yaml:3: this is not YAML: column ",
        ),
    ] {
        let (got, text) = home.check("from_env = true", &env).await;
        assert_eq!(got, Some(code), "{env:?}: {text}");
        assert!(text.contains(want), "{env:?}: {want} is not in\n{text}");
    }
}

/// Five clouds at once: three of them are wrong, which the log says, and the others serve.
#[tokio::test(flavor = "multi_thread")]
async fn clouds_that_are_right_serve_next_to_others() {
    let home = Home::new().await;
    let mut text = "[listen]\ngrpc = '127.0.0.1:0'\n".to_owned();
    for cloud in ["openstack", "kolla-admin-internal", "acme", "elsewhere"] {
        text += &format!(
            "[[upstream]]\nname = '{cloud}'\nfamily = 'heat'\nauth = {{ cloud = '{cloud}' }}\n"
        );
    }
    // A cloud that cannot be read prevents the start.
    let wrong = "[[upstream]]\nname = 'fed'\nfamily = 'heat'\nauth = { cloud = 'federated' }\n";
    let clouds = home.clouds().display().to_string();
    let env = [("OS_CLIENT_CONFIG_FILE", &*clouds)];
    let secure = Path::new(&clouds)
        .with_file_name("secure.yaml")
        .display()
        .to_string();
    let env = [
        env[0],
        ("OS_CLIENT_SECURE_FILE", &*secure),
        (
            "XDG_CONFIG_HOME",
            home.folder.path().join(".config").to_str().unwrap(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Serve::start_with(
        folder,
        &format!("{text}{wrong}"),
        std::process::Stdio::null(),
        &env,
    );
    gateway.wait_for("v3oidcpassword is not supported");
    assert_eq!(gateway.wait().0, Some(1));

    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Serve::start_with(folder, &text, std::process::Stdio::piped(), &env);
    let address = gateway.address();
    let client = Client::connect(address, &[drawbridge::contract::BUILT_IN.to_vec()]).await;
    for (cloud, want) in [
        ("openstack", None),
        ("kolla-admin-internal", None),
        ("acme", Some("upstream acme: ")),
        ("elsewhere", Some("upstream elsewhere: ")),
    ] {
        let metadata = [("drawbridge-upstream", cloud)];
        let result = client
            .call_with("StackService/ListStacks", json!({}), &metadata)
            .await;
        match want {
            None => assert!(result.is_ok(), "{cloud}: {result:?}"),
            Some(want) => {
                let status = result.unwrap_err();
                assert!(status.message().contains(want), "{cloud}: {status}");
                // Where the operator's files are is not for clients.
                assert!(
                    !status.message().contains("clouds.yaml"),
                    "{cloud}: {status}"
                );
            }
        }
    }
}
