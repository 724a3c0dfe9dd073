//! The protos as generators of other languages read them, and the bundle of `drawbridge protos`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use serde_json::Value;

/// Names of types that are visible without an import, or with those that most files have, in
/// C# (`System` and its implicit usings), Java (`java.lang`), Kotlin, Swift and TypeScript, and
/// the words that PHP does not accept as names of classes.
const SHADOWED: &str = "Action Array Attribute Boolean Buffer Byte Char Character Class Comparable
    Console Convert Date Decimal Default Delegate Dictionary Double Empty Enum Error Event
    Exception File Float Func Function Index Int Integer Interface Iterable Lazy List Lock Long
    Map Math Module Namespace Null Number Object Optional Override Package Parallel Parent Path
    Predicate Private Process Progress Promise Protected Protocol Public Random Range Record
    Result Runtime Self Set Short Static Stream String Switch Symbol Thread Timer Tuple Type
    Unit Uri Use Version Void";

/// The proto files with their text, by their names in imports, without those of `google`.
fn files() -> BTreeMap<String, String> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => collect(&path, files),
                false => files.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let files: BTreeMap<_, _> = paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
            (name.to_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .filter(|(name, _)| !name.starts_with("google/"))
        .collect();
    assert!(files.len() >= 40, "{}", files.len());
    files
}

/// The values of an option by package: of `csharp_namespace`, for example.
fn option_by_package(option: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (file, text) in files() {
        let line = |start: String| {
            let found: Vec<_> = text
                .lines()
                .filter_map(|l| l.strip_prefix(&start))
                .collect();
            assert_eq!(found.len(), 1, "{file}: {start}");
            found[0].trim_end_matches(';').trim_matches('"').to_owned()
        };
        let package = line("package ".to_owned());
        let value = line(format!("option {option} = "));
        let first = values.entry(package).or_insert_with(|| value.clone());
        assert_eq!(*first, value, "{file}: the files of a package differ");
    }
    values
}

#[test]
fn every_file_has_the_options_of_generators() {
    for (option, of) in [
        (
            "go_package",
            (|package| {
                let parts: Vec<_> = package.split('.').collect();
                let [.., name, version] = parts[..] else {
                    panic!("{package}")
                };
                format!(
                    "drawbridge.example/go/{};{name}{version}",
                    package.replace('.', "/")
                )
            }) as fn(&str) -> String,
        ),
        ("java_package", |package| {
            format!("drawbridge.{}", package.trim_start_matches("drawbridge."))
        }),
        ("java_multiple_files", |_| "true".to_owned()),
    ] {
        for (package, value) in option_by_package(option) {
            assert_eq!(value, of(&package), "{package}: {option}");
        }
    }
    let namespaces = option_by_package("csharp_namespace");
    for (package, namespace) in &namespaces {
        let without_root = package.trim_start_matches("drawbridge.");
        let want = format!("drawbridge.{without_root}");
        assert_eq!(namespace.to_lowercase(), want);
    }
    for (option, separator) in [("php_namespace", r"\\"), ("ruby_package", "::")] {
        for (package, value) in option_by_package(option) {
            assert_eq!(value, namespaces[&package].replace('.', separator));
        }
    }
    for option in ["objc_class_prefix", "swift_prefix"] {
        let prefixes = option_by_package(option);
        let distinct: BTreeSet<_> = prefixes.values().collect();
        assert_eq!(distinct.len(), prefixes.len(), "{option}: {prefixes:?}");
    }
}

/// Java has one outer class per file. Two files of a package must not have the same.
#[test]
fn java_outer_classes_are_distinct() {
    let mut seen = BTreeSet::new();
    for (file, text) in files() {
        let directory = file.rsplit_once('/').unwrap().0.to_owned();
        let line = text.lines().find(|l| l.contains("java_outer_classname"));
        let class = line.expect(&file).to_owned();
        assert!(class.ends_with("Proto\";"), "{file}: {class}");
        assert!(seen.insert((directory, class)), "{file}");
    }
}

/// protobufjs, which `@grpc/proto-loader` parses protos with, reads lists of scalars only.
#[test]
fn options_have_no_list_of_messages() {
    for (file, text) in files() {
        let code: String = text
            .lines()
            .map(|line| line.split("//").next().unwrap())
            .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
            .collect();
        assert!(!code.contains("[{"), "{file}: repeat the option instead");
    }
}

#[test]
fn names_do_not_shadow_types_of_languages() {
    let shadowed: BTreeSet<_> = SHADOWED.split_whitespace().collect();
    for (file, text) in files() {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("message" | "enum"), Some(name)) = (words.next(), words.next()) {
                assert!(!shadowed.contains(name), "{file}: {name}");
            }
            assert!(!line.contains("ServiceService"), "{file}: {line}");
        }
    }
}

fn bundle(directory: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .args(["protos", "--out"])
        .arg(directory)
        .env_clear()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let names = String::from_utf8(output.stdout).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        assert!(names.contains(path.to_str().unwrap()), "{path:?}: {names}");
    }
}

#[test]
fn bundle_has_all_protos_and_a_descriptor_set() {
    let temporary = tempfile::tempdir().unwrap();
    // A directory that does not exist.
    let directory = temporary.path().join("api/v1");
    bundle(&directory);

    let archive = std::fs::File::open(directory.join("protos.tar.gz")).unwrap();
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(archive)
        .read_to_end(&mut tar)
        .unwrap();
    // Files, each a header of 512 bytes with name and size, and then its text.
    let (mut names, mut at) = (Vec::new(), 0);
    while tar[at] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let bytes = &tar[at..][range];
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            std::str::from_utf8(&bytes[..end]).unwrap().to_owned()
        };
        let name = text(0..100);
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        let path = temporary.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &tar[at + 512..][..size]).unwrap();
        names.push(name.strip_prefix("proto/").unwrap().to_owned());
        at += 512 + size.next_multiple_of(512);
    }
    for (name, text) in files() {
        let path = temporary.path().join("proto").join(&name);
        assert_eq!(std::fs::read_to_string(path).unwrap(), text, "{name}");
    }

    // The archive compiles by itself, and gives the messages of the descriptor set.
    let compiled = protox::compile(&names, [temporary.path().join("proto")]).unwrap();
    let set = std::fs::read(directory.join("drawbridge.binpb")).unwrap();
    let set = prost_types::FileDescriptorSet::decode(&*set).unwrap();
    let sorted = |set: prost_types::FileDescriptorSet| {
        let files = set.file.into_iter();
        files
            .map(|file| (file.name().to_owned(), file.message_type))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(sorted(compiled), sorted(set));
}

#[test]
fn service_configs_repeat_what_is_idempotent_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    bundle(directory.path());
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(directory.path().join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };

    let direct = read("service_config.direct.json");
    assert_eq!(direct["methodConfig"].as_array().unwrap().len(), 1);
    let repeated: BTreeSet<_> = direct["methodConfig"][0]["name"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|name| {
            Some(format!(
                "{}/{}",
                name["service"].as_str()?,
                name["method"].as_str()?
            ))
        })
        .collect();
    // The table of all rpcs says the same.
    let table =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coverage.md"));
    let table = table.unwrap();
    let want: BTreeSet<_> = table
        .lines()
        .filter(|line| line.ends_with("| yes |"))
        .map(|line| {
            let names: Vec<_> = line.split('`').collect();
            format!("{}/{}", names[1], names[3])
        })
        .collect();
    assert_eq!(repeated, want);
    assert!(want.contains("openstack.orchestration.v1.StackService/WatchStack"));
    assert!(!want.contains("openstack.orchestration.v1.StackService/CreateStack"));
    assert!(!want.contains("hitachi.automation.v1.TaskService/SubmitServiceAndWatch"));

    let mesh = read("service_config.mesh.json").to_string();
    assert!(!mesh.contains("retryPolicy"), "{mesh}");
}
