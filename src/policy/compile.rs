//! Compiles rules into a table per rpc, and reports rules that name what does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drawbridge_transcoder::call::Idempotency;
use drawbridge_transcoder::contract::Method;

use super::{Grant, MethodTable, Pattern, Policy, Rule};
use crate::spelling::nearest;

/// What rules can be about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The rpcs.
    pub methods: &'a [&'a Arc<Method>],
    /// The names of the upstreams.
    pub upstreams: &'a [&'a str],
}

/// Compiles the rules.
///
/// # Errors
///
/// Returns each part of a rule that names nothing: the index of the rule, the key, and the problem.
pub fn compile(
    rules: &[Rule],
    subject: Subject<'_>,
) -> Result<Policy, Vec<(usize, &'static str, String)>> {
    let mut problems = Vec::new();
    let mut methods: std::collections::HashMap<Box<str>, MethodTable> = subject
        .methods
        .iter()
        .map(|method| (method.path.clone(), MethodTable::default()))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        let found = check_names(rule, subject);
        problems.extend(
            found
                .into_iter()
                .map(|(key, problem)| (index, key, problem)),
        );
        let mut usable: BTreeMap<&str, usize> = BTreeMap::new();
        let mut why_not = BTreeMap::new();
        for method in subject.methods {
            let Some(table) = methods.get_mut(&method.path) else {
                continue;
            };
            let starts = method.watch.as_ref().and_then(|watch| watch.start.as_ref());
            if let Some(start) = starts {
                let entry = table
                    .start
                    .get_or_insert_with(|| (start.rpc.path.clone(), Vec::new()));
                if rule.selects(&start.rpc)
                    && let Ok(fields) = fields(rule, method)
                {
                    entry.1.push(Grant {
                        rule: index,
                        fields,
                    });
                }
            }
            if !rule.selects(method) {
                continue;
            }
            for (field, _) in &rule.fields {
                let also = others(rule, field);
                match method.named_field(field, &also) {
                    Ok(_) => *usable.entry(field).or_default() += 1,
                    Err(why) => drop(
                        why_not
                            .entry(field.as_str())
                            .or_insert((why, &*method.path)),
                    ),
                }
            }
            if let Ok(fields) = fields(rule, method) {
                table.own.push(Grant {
                    rule: index,
                    fields,
                });
            }
        }
        for (field, _) in &rule.fields {
            if usable.contains_key(field.as_str()) {
                continue;
            }
            let problem = unusable(rule, field, why_not.get(field.as_str()), subject);
            problems.push((index, "fields", problem));
        }
    }
    match problems.is_empty() {
        true => Ok(Policy {
            rules: rules.to_vec(),
            methods,
        }),
        false => Err(problems),
    }
}

impl Rule {
    /// Returns whether the rule is about an rpc.
    fn selects(&self, method: &Method) -> bool {
        let in_service = |pattern: &Pattern| names_service(pattern, &method.service);
        let is_method = |pattern: &Pattern| names_method(pattern, method);
        (self.services.is_empty() || self.services.iter().any(in_service))
            && (self.methods.is_empty() || self.methods.iter().any(is_method))
            && (!self.read_only || is_read(method))
    }
}

/// Returns whether calls of an rpc have no side effects.
fn is_read(method: &Method) -> bool {
    method.idempotency == Idempotency::NoSideEffects && !method.may_change()
}

/// Returns whether a pattern names a service: by its full name, or by the last part of it.
fn names_service(pattern: &Pattern, service: &str) -> bool {
    pattern.matches(service) || pattern.matches(last(service))
}

/// Returns whether a pattern names an rpc: as `package.Service/Method`, `Service/Method` or
/// `Method`.
fn names_method(pattern: &Pattern, method: &Method) -> bool {
    let full = &method.path[1..];
    let short = format!("{}/{}", last(&method.service), method.name);
    pattern.matches(full) || pattern.matches(&short) || pattern.matches(&method.name)
}

fn last(service: &str) -> &str {
    service.rsplit('.').next().unwrap_or(service)
}

fn others<'r>(rule: &'r Rule, field: &str) -> Vec<&'r str> {
    let all = rule.fields.iter().map(|(other, _)| other.as_str());
    all.filter(|other| *other != field).collect()
}

/// Returns the fields of a rule as an rpc has them. Fails if one of them does not name its
/// resource.
fn fields(
    rule: &Rule,
    method: &Method,
) -> Result<Vec<(super::NamedField, Vec<super::ValuePattern>)>, &'static str> {
    let field = |(path, patterns): &(String, Vec<super::ValuePattern>)| {
        let named = method.named_field(path, &others(rule, path))?;
        Ok((named, patterns.clone()))
    };
    rule.fields.iter().map(field).collect()
}

/// Returns the patterns of a rule that match nothing.
fn check_names(rule: &Rule, subject: Subject<'_>) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    for pattern in &rule.upstreams {
        if !subject.upstreams.iter().any(|name| pattern.matches(name)) {
            let known = subject.upstreams.join(", ");
            let near = nearest(pattern.as_str(), subject.upstreams.iter().copied());
            let problem = format!(
                "{} is not the name of an upstream{near}; the upstreams are {known}",
                pattern.as_str()
            );
            problems.push(("upstreams", problem));
        }
    }
    let services: BTreeSet<&str> = subject
        .methods
        .iter()
        .map(|method| &*method.service)
        .collect();
    for pattern in &rule.services {
        if !services
            .iter()
            .any(|service| names_service(pattern, service))
        {
            let text = pattern.as_str();
            let candidates = services
                .iter()
                .flat_map(|service| [*service, last(service)]);
            let near = nearest(text, candidates);
            problems.push(("services", format!("{text} is not a service{near}")));
        }
    }
    for pattern in &rule.methods {
        if subject
            .methods
            .iter()
            .any(|method| names_method(pattern, method))
        {
            continue;
        }
        let text = pattern.as_str();
        let shorts: Vec<String> = subject
            .methods
            .iter()
            .map(|method| format!("{}/{}", last(&method.service), method.name))
            .collect();
        let candidates: Vec<&str> = match text.matches('/').count() {
            0 => subject.methods.iter().map(|method| &*method.name).collect(),
            _ if text.contains('.') => subject.methods.iter().map(|m| &m.path[1..]).collect(),
            _ => shorts.iter().map(String::as_str).collect(),
        };
        let near = nearest(text, candidates.into_iter());
        problems.push(("methods", format!("{text} is not an rpc{near}")));
    }
    // What is left of the rule once each of its patterns is known.
    if problems.is_empty() && !subject.methods.iter().any(|method| rule.selects(method)) {
        let key = if rule.methods.is_empty() {
            "read_only"
        } else {
            "methods"
        };
        problems.push((
            key,
            "the rule allows no rpc: no one matches all of its keys".to_owned(),
        ));
    }
    problems
}

/// Returns the identities of rules that no client token has: the index of the rule, and the
/// problem. None if there are no tokens.
pub fn unknown_tokens(rules: &[Rule], tokens: &[&str]) -> Vec<(usize, String)> {
    if tokens.is_empty() {
        return Vec::new();
    }
    let problem = |pattern: &Pattern| {
        let name = pattern.as_str().strip_prefix("token:")?;
        let is_known = |token: &&str| Pattern::new(name).matches(token);
        let is_unknown = !tokens.iter().any(is_known);
        is_unknown.then(|| {
            let near = nearest(name, tokens.iter().copied());
            let text = pattern.as_str();
            format!("{text} is not the name of a client token{near}")
        })
    };
    let of_rule = |(index, rule): (usize, &Rule)| {
        let problems: Vec<String> = rule.identities.iter().filter_map(problem).collect();
        problems.into_iter().map(move |problem| (index, problem))
    };
    rules.iter().enumerate().flat_map(of_rule).collect()
}

/// Says why no rpc of a rule is restricted by a field.
fn unusable(
    rule: &Rule,
    field: &str,
    why: Option<&(&'static str, &str)>,
    subject: Subject<'_>,
) -> String {
    let selected = subject.methods.iter().filter(|method| rule.selects(method));
    let mut names = BTreeSet::new();
    for method in selected {
        let message = method.schema.message(method.input);
        names.extend(message.fields.iter().map(|field| &*field.name));
    }
    if names.contains(field)
        && let Some((why, path)) = why
    {
        return format!(
            "`{field}` {why} in {}, nor in another rpc of the rule",
            &path[1..]
        );
    }
    let near = nearest(field, names.into_iter());
    format!("no rpc of the rule has a field `{field}`{near}")
}
