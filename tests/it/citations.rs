//! Citations of docs, in comments and pages, name a page and a heading that exist.

use std::path::{Path, PathBuf};

/// Pages whose facts comments cite.
const SHEETS: [(&str, &str); 4] = [
    ("docs/apis/", "heat.md"),
    ("docs/apis/", "servicestage.md"),
    ("docs/apis/", "jp1ao.md"),
    ("tests/real-heat/", "OBSERVED.md"),
];

#[test]
fn cited_headings_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, &mut files);
    let mut citations = 0;
    let mut wrong = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        let comments = comments(&source, file.extension().unwrap().to_str().unwrap());
        for (page, heading) in cited(&comments) {
            citations += 1;
            if !has_heading(&root.join(&page), &heading) {
                wrong.push(format!("{}: {page} has no \"{heading}\"", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(citations > 100, "only {citations} citations were found");
}

#[test]
fn comments_cite_pages_by_their_path() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let extension = file.extension().unwrap().to_str().unwrap();
        if extension == "md" {
            continue;
        }
        let source = std::fs::read_to_string(&file).unwrap();
        for text in without_path(&comments(&source, extension)) {
            wrong.push(format!("{}: {text}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn citations_are_found_across_lines() {
    let rust = "    /// Wraps (docs/apis/heat.md,\n    /// \"Stack\n    /// states\" and \"Errors\").\n let x = 1; // x";
    let found = cited(&comments(rust, "rs"));
    let heat = |heading: &str| ("docs/apis/heat.md".to_owned(), heading.to_owned());
    assert_eq!(found, [heat("Stack states"), heat("Errors")]);
    let python = "# See docs/errors.md,\n# \"Codes\".\nvalue = 'docs/errors.md, \"No comment\"'";
    let errors = ("docs/errors.md".to_owned(), "Codes".to_owned());
    assert_eq!(cited(&comments(python, "py")), [errors]);
    assert_eq!(
        without_path("heat.md 2.3, docs/apis/heat.md, `OBSERVED.md`").len(),
        2
    );
}

/// Collects the sources and pages of the repository.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                collect(&path, files);
            }
        } else if let Some("rs" | "proto" | "md" | "toml" | "py") =
            path.extension().and_then(|e| e.to_str())
        {
            files.push(path);
        }
    }
}

/// Returns a page, or the text of all comments on lines of their own, with each line break
/// as a space.
fn comments(source: &str, extension: &str) -> String {
    let marker = match extension {
        "md" => "",
        "toml" | "py" => "#",
        _ => "//",
    };
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix(marker))
        .map(|line| line.trim_start_matches(['/', '!', '#']).trim())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Finds citations such as `docs/apis/heat.md, "Stack states" and "Errors"`: page and
/// heading.
fn cited(comments: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for start in ["docs/", "tests/real-heat/"] {
        for (at, _) in comments.match_indices(start) {
            let Some((page, rest)) = comments[at..].split_once(".md") else {
                continue;
            };
            if page.contains([' ', '`', '"', '(']) {
                continue;
            }
            let mut rest = rest.trim_start_matches('`');
            for separator in [", \"", " and \"", ", \"", " and \""] {
                let Some((heading, after)) = rest
                    .strip_prefix(separator)
                    .and_then(|quoted| quoted.split_once('"'))
                else {
                    continue;
                };
                found.push((format!("{page}.md"), heading.to_owned()));
                rest = after;
            }
        }
    }
    found
}

fn has_heading(page: &Path, heading: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .any(|line| line.trim_start_matches('#').trim() == heading)
}

/// Finds names of [`SHEETS`] without their directory.
fn without_path(comments: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (directory, name) in SHEETS {
        for (at, _) in comments.match_indices(name) {
            let before = &comments[..at];
            let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '/' || c == '_');
            if !before.ends_with(directory) && (!is_word || before.ends_with('/')) {
                let end = (at + name.len() + 20).min(comments.len());
                let end = (at..=end).rev().find(|end| comments.is_char_boundary(*end));
                found.push(&comments[at..end.unwrap_or(at)]);
            }
        }
    }
    found
}
