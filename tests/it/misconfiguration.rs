//! Misconfigurations that a new user makes, tried with the binary: each message says what is
//! wrong, where, and what to do.

use std::path::Path;
use std::process::Command;

use crate::support::nowhere;

/// An upstream that needs nothing else.
const HEAT: &str = "[[upstream]]\nname = 'north'\nfamily = 'heat'\nproject_id = 'p1'\n";
const ENDPOINT: &str = "endpoint = 'https://heat.invalid/v1'\n";

/// A misconfiguration: the file, the variables, the arguments, and parts of the message.
struct Case {
    name: &'static str,
    file: String,
    env: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    code: i32,
    says: Vec<String>,
}

fn case(name: &'static str, file: impl Into<String>, says: &[&str]) -> Case {
    Case {
        name,
        file: file.into(),
        env: &[],
        arguments: &["check"],
        code: 1,
        says: says.iter().map(|&part| part.to_owned()).collect(),
    }
}

fn cases() -> Vec<Case> {
    let heat = |more: &str| format!("{HEAT}{ENDPOINT}{more}");
    let basic = "auth = {kind = 'basic', username = 'u', password_env = 'PASSWORD'}\n";
    let none = "auth = {kind = 'none'}\n";
    let nowhere = nowhere();
    let down = format!("{HEAT}endpoint = 'http://{nowhere}/v1'\n{none}");
    let address = nowhere.to_string();
    let keystone = format!(
        "{HEAT}auth = {{kind = 'keystone', auth_url = 'http://{address}/v3', username = 'demo', \
         password_env = 'PASSWORD', project_name = 'demo'}}\n"
    );
    let listen = |address: &str| format!("[listen]\ngrpc = '{address}'\n");
    let tls = |cert: &str, key: &str| {
        let files = format!("cert_file = '{cert}.pem'\nkey_file = '{key}.key'\n");
        format!("[listen.tls]\n{files}{}", heat(none))
    };
    vec![
        case(
            "a typing error in the level",
            format!("[log]\nlevel = 'inof'\n{}", heat("")),
            &[
                "d.toml:2: log.level: `inof` is not a level, did you mean info?",
                "debug, trace",
            ],
        ),
        Case {
            env: &[("DRAWBRIDGE_LOG", "loud")],
            ..case(
                "an unknown level",
                heat(""),
                &["environment: DRAWBRIDGE_LOG: `loud` is not"],
            )
        },
        Case {
            env: &[("DRAWBRIDGE_LISTN", "1")],
            ..case(
                "an unknown variable",
                heat(none),
                &[
                    "DRAWBRIDGE_LISTN: is not a variable",
                    "did you mean DRAWBRIDGE_LISTEN?",
                ],
            )
        },
        case(
            "an unknown family",
            HEAT.replace("heat", "head"),
            &["d.toml:3: upstream.family: the family head does not exist, did you mean heat?"],
        ),
        case(
            "an API of one's own without descriptors",
            heat("").replace("'heat'", "'acme'"),
            &[
                "d.toml:3: upstream.family: ",
                "name its descriptor set in [[descriptors]]",
            ],
        ),
        case(
            "a descriptor set that is a text",
            format!("[[descriptors]]\nfile = 'd.toml'\n{}", heat("")),
            &[
                "d.toml: not a complete descriptor set",
                "create one with `buf build",
            ],
        ),
        case(
            "no endpoint",
            HEAT,
            &["d.toml:1: upstream.endpoint: is missing: set the URL"],
        ),
        case(
            "an endpoint without scheme",
            format!("{HEAT}endpoint = 'heat.test:8004'"),
            &["d.toml:5: upstream.endpoint: must begin with https:// or http://"],
        ),
        case(
            "an upstream that does not run",
            down,
            &[
                "north  FAILED  http://",
                &address,
                "refused",
                "check `endpoint`",
                "1 of 1 failed",
            ],
        ),
        case(
            "a host that does not exist",
            heat(none),
            &[
                "https://heat.invalid/v1: cannot connect: https://heat.invalid: ",
                "`endpoint`",
            ],
        ),
        Case {
            env: &[("PASSWORD", "s3cret")],
            ..case(
                "an identity service that does not run",
                keystone.clone(),
                &[
                    "cannot log in at http://",
                    &address,
                    "as user demo",
                    "check the URL",
                ],
            )
        },
        case(
            "a variable that is not set",
            keystone,
            &["d.toml:5: upstream.auth.password_env: the variable PASSWORD is not set"],
        ),
        case(
            "a password in the file",
            heat("auth = {kind = 'basic', username = 'u', password = 's3cret'}"),
            &[
                "d.toml:6: upstream.auth.password: must not be in this file",
                "use password_env or",
            ],
        ),
        case(
            "a cloud that clouds.yaml does not have",
            format!("{HEAT}auth = {{cloud = 'nroth'}}\n"),
            &[
                "d.toml:5: upstream.auth.cloud: ",
                "clouds.yaml: there is no cloud nroth, did you mean north? (of: north)",
            ],
        ),
        Case {
            env: &[("PASSWORD", "s3cret")],
            ..case(
                "no project",
                heat(basic).replace("project_id = 'p1'\n", ""),
                &[
                    "north  FAILED",
                    "project_id: is empty",
                    "set `project_id` of upstream north",
                ],
            )
        },
        case(
            "an unknown key",
            heat("endpont = 'x'"),
            &["d.toml:6: upstream.endpont: unknown key, did you mean endpoint?"],
        ),
        case(
            "an unknown section",
            format!("[lisen]\ngrpc = '127.0.0.1:1'\n{}", heat("")),
            &["d.toml:1: lisen: unknown key, did you mean listen?"],
        ),
        case(
            "a syntax error",
            "[[upstream]\nname = 'a'\n",
            &["d.toml:1: unclosed array table"],
        ),
        case(
            "an empty file",
            "",
            &["d.toml: has no upstream: add an [[upstream]]"],
        ),
        case(
            "an unknown dialect",
            heat("dialect = 'openstak'"),
            &["d.toml:6: upstream.dialect: ", "did you mean openstack?"],
        ),
        case(
            "two defaults",
            [
                heat("default = true\n"),
                heat("default = true\n").replace("north", "south"),
            ]
            .concat(),
            &["d.toml:12: upstream.default: upstream north is already the default of heat"],
        ),
        case(
            "no default",
            [heat(none), heat(none).replace("north", "south")].concat(),
            &[
                "warning: family heat: no upstream is the default",
                "of one of north, south",
            ],
        ),
        case(
            "a CA that is a text",
            heat("ca_file = 'd.toml'\n"),
            &[
                "d.toml:6: upstream.ca_file: ",
                "d.toml: contains no PEM certificate",
            ],
        ),
        case(
            "a host name as address",
            format!("{}{}", listen("localhost:50051"), heat("")),
            &["d.toml:2: listen.grpc: must be an IP address and a port, like 127.0.0.1:50051"],
        ),
        Case {
            env: &[("PASSWORD", "s3cret")],
            ..case(
                "credentials for everybody",
                format!("{}{}", listen("0.0.0.0:50051"), heat(basic)),
                &[
                    "d.toml:1: listen: any client",
                    "set listen.tls.client_ca_file, listen.clients",
                ],
            )
        },
        case(
            "one address for two listeners",
            format!("[listen]\ngrpc = '127.0.0.1:7'\nadmin = '127.0.0.1:7'\n{}", heat("")),
            &["d.toml:3: listen.admin: 127.0.0.1:7 is taken by the gRPC listener on 127.0.0.1:7"],
        ),
        Case {
            env: &[("PASSWORD", "s3cret")],
            ..case(
                "a login of OpenStack for another API",
                format!("{HEAT}auth = {{kind = 'basic', username = 'u', password_env = 'PASSWORD'}}\n{ENDPOINT}")
                    .replace("heat'", "servicestage'"),
                &[
                    "d.toml:5: upstream.auth.kind: the API of the family servicestage accepts the \
                     kinds passthrough, none, token, keystone, ak_sk",
                ],
            )
        },
        Case {
            env: &[("PASSWORD", "s3cret")],
            ..case(
                "a password over plaintext",
                format!("{HEAT}endpoint = 'http://heat.invalid/v1'\n{basic}"),
                &["d.toml:5: upstream.endpoint: credentials would be sent over plaintext HTTP"],
            )
        },
        case(
            "a CA of clients that has expired",
            tls("good", "good").replacen("[[up", "client_ca_file = 'expired.pem'\n[[up", 1),
            &[
                "warning: listen.tls.client_ca_file: the CA certificate of CN=",
                "expired at 2026-01-02T00:00:00Z: renew it, and the certificates of clients",
            ],
        ),
        Case {
            arguments: &["serve"],
            ..case(
                "an address of another machine",
                format!("{}{}", listen("192.0.2.1:50051"), heat("")),
                &[
                    "cannot listen on 192.0.2.1:50051: ",
                    "by listen.grpc or DRAWBRIDGE_LISTEN",
                ],
            )
        },
        case(
            "no certificate",
            tls("other", "good"),
            &[
                "d.toml:2: listen.tls.cert_file: the file ",
                "other.pem does not exist",
            ],
        ),
        case(
            "an expired certificate",
            tls("expired", "expired"),
            &[
                "FAILED  listen.tls.cert_file: the certificate of CN=",
                "expired at 2026-01-02T00:00:00Z: renew it",
            ],
        ),
        case(
            "a certificate of the future",
            tls("future", "future"),
            &[
                "FAILED  listen.tls.cert_file: ",
                "is not valid before 2100-01-01T00:00:00Z",
            ],
        ),
        case(
            "the key of another certificate",
            tls("good", "expired"),
            &["d.toml:3: listen.tls.key_file: does not match cert_file: "],
        ),
        Case {
            arguments: &["check", "--upstream", "nort"],
            code: 2,
            ..case(
                "an upstream that does not exist",
                heat(""),
                &["no upstream is named nort, did you mean north?; there are: north"],
            )
        },
        Case {
            arguments: &["check", "--json", "--upstream", "nort"],
            code: 2,
            ..case(
                "an upstream that does not exist, in JSON",
                heat(""),
                &[
                    "\"problem\": \"no upstream is named nort, did you mean north?; there are: north\"",
                ],
            )
        },
        Case {
            arguments: &["check", "--jsn"],
            code: 2,
            ..case("an unknown flag", heat(""), &["'--jsn'", "'--json'"])
        },
    ]
}

/// Writes a certificate and its key.
fn certificate(directory: &Path, name: &str, begin: i32, end: (i32, u8, u8)) {
    let mut params = rcgen::CertificateParams::new(["gateway".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(begin, 1, 1);
    params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn messages_say_what_where_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    certificate(directory, "good", 2020, (2100, 1, 1));
    certificate(directory, "expired", 2025, (2026, 1, 2));
    certificate(directory, "future", 2100, (2101, 1, 1));
    let clouds = "clouds: {north: {auth: {auth_url: 'http://127.0.0.1:1/v3'}}}\n";
    std::fs::write(directory.join("clouds.yaml"), clouds).unwrap();
    let cases = cases();
    assert!(cases.len() >= 20);
    for case in cases {
        std::fs::write(directory.join("d.toml"), &case.file).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .args(case.arguments)
            .args(["--config", "d.toml"])
            .current_dir(directory)
            .env_clear()
            .env("HOME", directory)
            .envs(case.env.iter().copied())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            output.status.code(),
            Some(case.code),
            "{}: {text}",
            case.name
        );
        for part in &case.says {
            assert!(
                text.contains(part.as_str()),
                "{}: {part} is not in\n{text}",
                case.name
            );
        }
        assert!(!text.contains("s3cret"), "{}: {text}", case.name);
    }
}
