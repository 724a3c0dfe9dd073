//! Comments that cite a heading of docs/apis cite one that exists.

use std::path::{Path, PathBuf};

#[test]
fn cited_headings_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["proto", "src", "crates"] {
        collect(&root.join(directory), &mut files);
    }
    let mut citations = 0;
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        for (page, heading) in cited(&comments(&source)) {
            citations += 1;
            let text = std::fs::read_to_string(root.join(&page)).expect(&page);
            let exists = text
                .lines()
                .filter_map(|line| line.strip_prefix('#'))
                .any(|line| line.trim_start_matches('#').trim() == heading);
            assert!(exists, "{}: {page} has no \"{heading}\"", file.display());
        }
    }
    assert!(citations > 30, "only {citations} citations were found");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs" || e == "proto") {
            files.push(path);
        }
    }
}

/// Returns the text of all comments on lines of their own, with each line break as a space.
fn comments(source: &str) -> String {
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("//"))
        .map(|line| line.trim_start_matches(['/', '!']).trim())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Finds citations such as `docs/apis/heat.md, "Stack states"`: page and heading.
fn cited(comments: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in comments.match_indices("docs/apis/") {
        let rest = &comments[at..];
        let Some((page, rest)) = rest.split_once(".md") else {
            continue;
        };
        let Some(quoted) = rest.trim_start_matches('`').strip_prefix(", \"") else {
            continue;
        };
        if let Some((heading, _)) = quoted.split_once('"') {
            found.push((format!("{page}.md"), heading.to_owned()));
        }
    }
    found
}
