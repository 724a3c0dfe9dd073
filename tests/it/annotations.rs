//! docs/annotations.md is generated from the comments of proto/drawbridge/v1/options.proto.

use std::fmt::Write;

const PAGE: &str = "docs/annotations.md";
const PROTO: &str = "proto/drawbridge/v1/options.proto";

/// The page up to this heading is written by hand.
const FIRST_HEADING: &str = "## FileRules\n";

#[test]
fn annotations_page_matches_the_comments_of_the_options() {
    let page = read(PAGE);
    let (head, _) = page.split_once(FIRST_HEADING).expect(FIRST_HEADING);
    let generated = format!("{head}{}", sections(&read(PROTO)));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path(PAGE), &generated).unwrap();
        return;
    }
    assert!(
        page == generated,
        "{PAGE} differs from {PROTO}: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn every_option_has_an_example() {
    let mut options = 0;
    for element in elements(&read(PROTO)) {
        if let Kind::Field(_) = element.kind {
            options += 1;
            assert!(!element.example.is_empty(), "{}", element.name);
        }
    }
    assert!(options > 100, "only {options} options were found");
}

fn path(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

/// What a comment of the proto documents.
enum Kind {
    Message,
    Enum,
    /// With its type.
    Field(String),
    Value,
}

struct Element {
    kind: Kind,
    name: String,
    paragraphs: Vec<String>,
    example: String,
}

/// Returns messages, enums, fields and values in the order of the file, without the extensions.
fn elements(proto: &str) -> Vec<Element> {
    let mut found = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut in_extension = false;
    for line in proto.lines() {
        let text = line.trim();
        if let Some(rest) = text.strip_prefix("//") {
            comment.push(rest.trim());
            continue;
        }
        let lines = std::mem::take(&mut comment);
        if text.starts_with("extend ") {
            in_extension = true;
        } else if text == "}" {
            in_extension = false;
        }
        let Some((kind, name)) = declaration(text).filter(|_| !in_extension) else {
            continue;
        };
        let mut paragraphs: Vec<String> = lines
            .split(|line| line.is_empty())
            .map(|paragraph| paragraph.join(" "))
            .filter(|paragraph| !paragraph.is_empty())
            .collect();
        let mut example = String::new();
        paragraphs.retain(|paragraph| match paragraph.strip_prefix("Example: ") {
            Some(code) => {
                example = code.to_owned();
                false
            }
            None => true,
        });
        found.push(Element {
            kind,
            name,
            paragraphs,
            example,
        });
    }
    found
}

fn declaration(text: &str) -> Option<(Kind, String)> {
    let word = |prefix: &str| {
        let name = text.strip_prefix(prefix)?.strip_suffix(" {")?;
        Some(name.to_owned())
    };
    if let Some(name) = word("message ") {
        return Some((Kind::Message, name));
    }
    if let Some(name) = word("enum ") {
        return Some((Kind::Enum, name));
    }
    let (before, number) = text.strip_suffix(';')?.split_once(" = ")?;
    number.parse::<u32>().ok()?;
    Some(match before.rsplit_once(' ') {
        Some((of_type, name)) => (Kind::Field(of_type.to_owned()), name.to_owned()),
        None => (Kind::Value, before.to_owned()),
    })
}

/// Returns a section for each message and enum, with a table of its fields or values.
fn sections(proto: &str) -> String {
    let mut page = String::new();
    let mut first_row = false;
    for element in elements(proto) {
        let Element {
            kind,
            name,
            paragraphs,
            example,
        } = element;
        let header = first_row;
        match kind {
            Kind::Message | Kind::Enum => {
                let gap = if page.is_empty() { "" } else { "\n" };
                write!(page, "{gap}## {name}\n\n{}\n\n", paragraphs.join("\n\n")).unwrap();
                first_row = true;
            }
            Kind::Field(of_type) => {
                if header {
                    page.push_str("| option | type | meaning | example |\n|---|---|---|---|\n");
                }
                let meaning = paragraphs.join("<br>");
                writeln!(page, "| `{name}` | `{of_type}` | {meaning} | {example} |").unwrap();
                first_row = false;
            }
            Kind::Value => {
                if header {
                    page.push_str("| value | meaning |\n|---|---|\n");
                }
                let meaning = paragraphs.join("<br>");
                writeln!(page, "| `{name}` | {meaning} |").unwrap();
                first_row = false;
            }
        }
    }
    page
}
