//! Any bytes are a configuration, or problems with their place: the configuration file,
//! `clouds.yaml` and `secure.yaml`, and `NO_PROXY`.
//!
//! The first byte selects the reader. In `clouds.yaml` a line of dashes divides the two files.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use drawbridge::config::Config;
use drawbridge::credentials::clouds_yaml;
use drawbridge::http_client::bypasses_proxy;
use libfuzzer_sys::fuzz_target;
use url::Url;

/// The folder of the files: in memory, where there is such a file system.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = parent.join(format!("drawbridge-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the folder can be made");
    folder
});

const SEPARATOR: &str = "\n-----\n";

fuzz_target!(|input: &[u8]| {
    let Some((reader, input)) = input.split_first() else {
        return;
    };
    match reader % 3 {
        0 => config(input),
        1 => clouds(input),
        _ => no_proxy(input),
    }
});

fn config(input: &[u8]) {
    let path = FOLDER.join("drawbridge.toml");
    fs::write(&path, input).expect("the file can be written");
    let env = |_: &str| None;
    match Config::load(&path, &env) {
        Ok(config) => drop(format!("{config:?}")),
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| drop(problem.to_string()));
        }
    }
    Config::has_json_log(Some(&path), &env);
}

fn clouds(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (clouds, secure) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
    let paths = ["clouds.yaml", "secure.yaml"].map(|name| FOLDER.join(name));
    for (path, text) in paths.iter().zip([clouds, secure]) {
        fs::write(path, text).expect("the file can be written");
    }
    let env = |name: &str| match name {
        "OS_CLIENT_CONFIG_FILE" => paths[0].to_str().map(str::to_owned),
        "OS_CLIENT_SECURE_FILE" => paths[1].to_str().map(str::to_owned),
        _ => None,
    };
    for name in [None, Some("a")] {
        let _ = clouds_yaml::from_cloud(name, Some("RegionOne"), &env);
    }
}

fn no_proxy(input: &[u8]) {
    let list = String::from_utf8_lossy(input);
    for url in [
        "http://api.example.com:8004/v1",
        "https://10.1.2.3/",
        "http://[2001:db8::1]:5000/v3",
    ] {
        bypasses_proxy(&list, &Url::parse(url).expect("it is a URL"));
    }
}
