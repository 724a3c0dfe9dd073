//! Imports point one way: each directory of `src/` may use those listed before it in
//! `LAYERS`, and no modules import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The directories and files of `src/`, from the bottom up.
const LAYERS: &[&[&str]] = &[
    &["api"],
    &["reload", "spelling"],
    &["error"],
    &["deadline"],
    &["memory"],
    &["downstream"],
    &["policy"],
    &["http_client"],
    &["credentials"],
    &["upstream"],
    &["families"],
    &["contract"],
    &["engine", "telemetry"],
    &["watch"],
    &["config"],
    &["admin"],
    &["server"],
    &["cli"],
];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Collects the Rust files below a directory.
fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Returns the code of a file without its tests and comments.
fn code(text: &str) -> String {
    let tests = text
        .find("\n#[cfg(test)]\nmod tests {")
        .unwrap_or(text.len());
    text[..tests]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn imports_never_point_upward() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut upward = BTreeSet::new();
    let mut seen = 0;
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let from = path.split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&from) || path.ends_with("tests.rs") || path.contains("tests/")
        {
            continue;
        }
        let from_rank = rank(from).unwrap_or_else(|| panic!("src/{path} has no layer"));
        for part in code(&std::fs::read_to_string(&file).unwrap())
            .split("crate::")
            .skip(1)
        {
            let to: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let Some(to_rank) = rank(&to) else { continue };
            seen += 1;
            if to != from && to_rank >= from_rank {
                upward.insert(format!("src/{path} imports {to}"));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
    assert!(upward.is_empty(), "{upward:#?}");
}

/// A path in code, as its segments: `crate::json::wire` or `super::View`.
type CodePath = Vec<String>;

/// What one module file imports.
struct Module {
    /// The names that its `use` lines bring into scope, with their full paths.
    names: BTreeMap<String, CodePath>,
    /// All paths in its code, `use` lines included.
    paths: Vec<CodePath>,
}

/// The modules of a crate by their paths, without its tests: `crate::json::decode`.
struct Modules(BTreeMap<CodePath, Module>);

impl Modules {
    fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        sources(root, &mut files);
        let mut codes = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for file in files {
            let path = file.strip_prefix(root).unwrap().with_extension("");
            let path = path.to_str().unwrap();
            let mut module = vec!["crate".to_owned()];
            match path {
                "main" => continue,
                "lib" => {}
                _ => module.extend(path.split('/').map(str::to_owned)),
            }
            let text = std::fs::read_to_string(&file).unwrap();
            for declared in text.split("#[cfg(test)]").skip(1) {
                let line = declared.trim_start().lines().next().unwrap_or_default();
                if let Some((_, name)) = line.split_once("mod ") {
                    let name = name.trim_end_matches([' ', '{', ';']).to_owned();
                    tests.insert([module.clone(), vec![name]].concat());
                }
            }
            codes.insert(module, code(&text));
        }
        codes.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        let modules: BTreeSet<CodePath> = codes.keys().cloned().collect();
        Self(
            codes
                .into_iter()
                .map(|(path, code)| {
                    let module = Module::read(&path, &code, &modules);
                    (path, module)
                })
                .collect(),
        )
    }

    /// Returns the module that defines what a full path names, through re-exports.
    fn definition(&self, path: &[String], depth: usize) -> Option<&CodePath> {
        let length = (1..=path.len())
            .rev()
            .find(|length| self.0.contains_key(&path[..*length]))?;
        let (found, module) = self.0.get_key_value(&path[..length])?;
        match path.get(length).and_then(|name| module.names.get(name)) {
            Some(full) if depth < 8 => {
                let full = [full, &path[length + 1..]].concat();
                self.definition(&full, depth + 1)
            }
            _ => Some(found),
        }
    }

    /// Returns the imports of each module that is not `main`.
    fn imports(&self) -> BTreeSet<(&CodePath, &CodePath)> {
        self.0
            .iter()
            .flat_map(|(from, module)| {
                let to = module.paths.iter();
                to.filter_map(move |path| Some((from, self.definition(path, 0)?)))
            })
            .filter(|(from, to)| from != to)
            .collect()
    }

    /// Returns the circles among modules side by side: two children of one module,
    /// each with all below it, that import each other, directly or through others. A
    /// module and its own children are one unit.
    fn circles(&self) -> Vec<String> {
        let mut graphs: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for (from, to) in self.imports() {
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if let (Some(one), Some(other)) = (from.get(common), to.get(common)) {
                let graph = graphs.entry(&from[..common]).or_default();
                graph.entry(one).or_default().insert(other);
            }
        }
        let mut circles = Vec::new();
        for (parent, graph) in &graphs {
            for start in graph.keys() {
                let mut reached = BTreeSet::new();
                let mut next: Vec<&str> = vec![start];
                while let Some(module) = next.pop() {
                    for to in graph.get(module).into_iter().flatten() {
                        if reached.insert(*to) {
                            next.push(to);
                        }
                    }
                }
                if reached.contains(start) {
                    let parent = parent.join("::");
                    circles.push(format!("{parent}::{start} imports {:?}", graph[start]));
                }
            }
        }
        circles
    }
}

impl Module {
    fn read(path: &CodePath, code: &str, modules: &BTreeSet<CodePath>) -> Self {
        let mut this = Self {
            names: BTreeMap::new(),
            paths: Vec::new(),
        };
        // `use` lines first: they say what the first segment of other paths is.
        let mut rest = String::new();
        let mut lines = code.lines();
        while let Some(line) = lines.next() {
            let is_use = |visibility: &str| visibility.is_empty() || visibility.starts_with("pub");
            let tree = match line.trim_start().split_once("use ") {
                Some((visibility, tree)) if is_use(visibility) => tree,
                _ => {
                    rest.push_str(line);
                    rest.push('\n');
                    continue;
                }
            };
            let mut tree = tree.to_owned();
            while !tree.contains(';') {
                tree.push_str(lines.next().expect("a `use` ends with a semicolon"));
            }
            let tree = tree.split(';').next().unwrap();
            for (name, used) in leaves(tree) {
                if let Some(full) = full_path(path, &used, &this.names, modules) {
                    this.names.insert(name, full.clone());
                    this.paths.push(full);
                }
            }
        }
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in rest.split(|c| !is_path(c)).filter(|w| w.contains("::")) {
            let used: CodePath = word.split("::").map(str::to_owned).collect();
            this.paths
                .extend(full_path(path, &used, &this.names, modules));
        }
        this
    }
}

/// Returns the names that a `use` tree brings into scope, each with its path.
fn leaves(tree: &str) -> Vec<(String, CodePath)> {
    let Some((prefix, inner)) = tree.split_once('{') else {
        let (path, alias) = match tree.split_once(" as ") {
            Some((path, alias)) => (path, Some(alias.trim().to_owned())),
            None => (tree, None),
        };
        let path: CodePath = path.trim().split("::").map(str::to_owned).collect();
        let name = alias.unwrap_or_else(|| path.last().unwrap().clone());
        return vec![(name, path)];
    };
    let inner = &inner[..inner.rfind('}').unwrap()];
    let prefix: CodePath = prefix
        .trim()
        .trim_end_matches("::")
        .split("::")
        .map(str::to_owned)
        .collect();
    let mut depth = 0;
    inner
        .split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .filter(|part| !part.trim().is_empty())
        .flat_map(leaves)
        .map(|(name, path)| {
            if path == ["self"] {
                return (prefix.last().unwrap().clone(), prefix.clone());
            }
            (name, [prefix.clone(), path].concat())
        })
        .collect()
}

/// Returns a path from the crate's root on; none when it leads out of the crate.
fn full_path(
    module: &CodePath,
    used: &[String],
    names: &BTreeMap<String, CodePath>,
    modules: &BTreeSet<CodePath>,
) -> Option<CodePath> {
    let (first, rest) = used.split_first()?;
    let child = [&module[..], std::slice::from_ref(first)].concat();
    match &**first {
        "crate" => Some(used.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let ups = used.iter().take_while(|part| *part == "super").count();
            let above = &module[..module.len().checked_sub(ups)?];
            Some([above, &used[ups..]].concat())
        }
        _ if modules.contains(&child) => Some([&child, rest].concat()),
        name => Some([names.get(name)?, rest].concat()),
    }
}

#[test]
fn modules_never_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in ["src", "crates/transcoder/src"] {
        let modules = Modules::read(&root.join(directory));
        let count = modules.imports().len();
        assert!(count > 100, "only {count} imports found in {directory}");
        let circles = modules.circles();
        assert!(circles.is_empty(), "{directory}: {circles:#?}");
    }
}

#[test]
fn the_transcoder_needs_no_runtime() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["-p", "drawbridge-transcoder"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("prost-reflect"), "{tree}");
    for name in ["tokio", "hyper", "tonic", "reqwest"] {
        assert!(
            !tree
                .lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            "{tree}"
        );
    }
}
