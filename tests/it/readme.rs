//! docs/coverage.md matches the contract, and docs name existing files.

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
