//! docs/coverage.md matches the contract, docs name existing files, and the README's call by curl
//! works.

use serde_json::json;

use crate::support::recorder::{Answer, Recorder};
use crate::support::web::{Version, send};
use crate::support::{Gateway, upstream};

#[test]
fn coverage_table_matches_the_contract() {
    let readme = include_str!("../../docs/coverage.md");
    let inner = readme
        .split_once("<!-- coverage -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- /coverage -->"))
        .expect("the markers")
        .0;
    let table = drawbridge::contract::with_built_in(&[]).unwrap().coverage();
    assert_eq!(
        inner.trim(),
        table.trim(),
        "paste what `drawbridge coverage` prints"
    );
}

/// Every path in backticks that begins in the source tree exists.
#[test]
fn docs_name_files_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
    let mut seen = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let in_tree = ["src/", "crates/", "tests/", "docs/", "proto/"];
            // FAMILY and the like are placeholders.
            let several = word
                .split('/')
                .any(|part| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase()));
            if !in_tree.iter().any(|start| word.starts_with(start))
                || several
                || word.contains(['{', '*', ' ', '#'])
            {
                continue;
            }
            seen += 1;
            assert!(root.join(word).exists(), "{}: {word}", page.display());
        }
    }
    assert!(seen > 30, "only {seen} paths were found");
}

/// The README's call by curl is one of Connect that this gateway serves.
#[tokio::test]
async fn curl_of_the_readme_is_served() {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|line| line.starts_with("curl "));
    let line = line.expect("a line with curl");
    assert!(include_str!("../../docs/protocols.md").contains(line));
    // -H 'NAME: VALUE' -d 'BODY' URL
    let quoted: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
    let [header, body] = quoted[..] else {
        panic!("{line}");
    };
    let header = header.split_once(": ").unwrap();
    let url: url::Url = line.rsplit_once(' ').unwrap().1.parse().unwrap();
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"stack": {"id": "s1", "stack_name": "shop"}}),
    ))
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let address = gateway.running.grpc;
    let (version, path) = (Version::Http1, url.path());
    let response = send(address, version, "POST", path, &[header], body.to_owned()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["stack"]["stackName"], "shop");
}
