//! Each documented operation is an rpc that is bound to the documented verb and path, and
//! each rpc is a documented operation.

use std::collections::BTreeSet;

use drawbridge::contract::{Contract, Method};
use drawbridge::families::family;
use drawbridge_transcoder::call::Idempotency;

/// A line of `tests/fixtures/operations.tsv`.
pub struct Operation<'a> {
    pub rpc: &'a str,
    verb: &'a str,
    path: &'a str,
    pub dialects: BTreeSet<&'a str>,
    idempotency: &'a str,
}

pub fn documented(of: &str) -> Vec<Operation<'static>> {
    include_str!("../fixtures/operations.tsv")
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|columns| columns[0] == of)
        .map(|columns| Operation {
            rpc: columns[2],
            verb: columns[3],
            path: columns[4],
            dialects: columns[5].split(',').collect(),
            idempotency: columns[6],
        })
        .collect()
}

/// Removes the names of variables from a path.
fn shape(path: &str) -> String {
    let mut shape = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = (inside || c == '{') && c != '}';
        if !inside || c == '{' {
            shape.push(c);
        }
    }
    shape
}

fn contract() -> Contract {
    drawbridge::contract::with_built_in(&[]).unwrap_or_else(|e| panic!("{}", e.join("\n")))
}

/// Checks that each operation of a family is bound once, except for those that are left out
/// for a reason.
fn all_bound(name: &str, count: usize, left_out: &[(&str, &str)]) {
    let contract = contract();
    let methods: Vec<&Method> = contract
        .methods()
        .into_iter()
        .map(|m| &**m)
        .filter(|m| *m.family == *name)
        // An rpc that is composed of other rpcs is not an operation.
        .filter(|m| m.watch.is_none() && m.log.is_none() && m.pages.is_none())
        .collect();
    let mut operations = documented(name);
    assert_eq!(operations.len(), count, "{name}");
    let mut wrong = Vec::new();
    for (rpc, why) in left_out {
        let before = operations.len();
        operations.retain(|operation| operation.rpc != *rpc);
        if operations.len() + 1 != before {
            wrong.push(format!("{rpc}: is not there to be left out ({why})"));
        }
    }
    for operation in &operations {
        let found: Vec<_> = methods
            .iter()
            .filter(|m| *m.name == *operation.rpc)
            .collect();
        let [method] = found[..] else {
            wrong.push(format!("{}: {} rpcs", operation.rpc, found.len()));
            continue;
        };
        if (method.verb.as_str(), shape(&method.template))
            != (operation.verb, shape(operation.path))
        {
            wrong.push(format!(
                "{}: {} {} is not {} {}",
                operation.rpc, method.verb, method.template, operation.verb, operation.path
            ));
        }
        let dialects: BTreeSet<&str> = family(name)
            .dialects
            .iter()
            .copied()
            .filter(|d| !method.absent_in.iter().any(|absent| **absent == **d))
            .collect();
        // The documents of some families do not specify it.
        let said = !operation.dialects.contains("-");
        if said && dialects.len() > 1 && dialects != operation.dialects {
            wrong.push(format!("{}: offered by {dialects:?}", operation.rpc));
        }
        // The proto may be stricter than the document: a wrong retry is worse than none.
        let safe = operation.idempotency == "safe";
        let never = operation.idempotency == "no";
        if (method.idempotency == Idempotency::NoSideEffects && !safe)
            || (method.idempotency != Idempotency::NonIdempotent && never)
        {
            wrong.push(format!("{}: {:?}", operation.rpc, method.idempotency));
        }
    }
    let known: BTreeSet<&str> = operations.iter().map(|o| o.rpc).collect();
    for method in methods.iter().filter(|m| !known.contains(&*m.name)) {
        wrong.push(format!("{}: is no documented operation", method.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn servicestage() {
    all_bound("servicestage", 103, &[]);
}

#[test]
fn heat() {
    all_bound("heat", 56, &[]);
}

#[test]
fn jp1ao() {
    all_bound(
        "jp1ao",
        81,
        &[("GetImportForm", "answers with a page for browsers")],
    );
}
