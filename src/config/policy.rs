//! `[[policy]]`: what each identity may do; `[audit]`: what is kept of it.

use super::reader::{Found, Section};
use super::{Config, Problem};
use crate::policy::{self, Pattern, Policy, Rule, Subject, ValuePattern};
use crate::telemetry::AuditSettings;
use drawbridge_transcoder::contract::Contract;

/// Reads one rule, the `number`th.
pub(super) fn read(section: &Section<'_>, number: usize) -> Option<Rule> {
    let name = section.text("name");
    let identities = patterns(section, "identities");
    section.describe_required("identities");
    match &identities {
        None => section.invalid(
            "identities",
            "is missing: name the clients, or \"*\" for all",
        ),
        Some(names) if names.is_empty() => {
            section.invalid("identities", "is empty: name the clients, or \"*\" for all");
        }
        Some(_) => {}
    }
    let [upstreams, services, methods] = ["upstreams", "services", "methods"].map(|key| {
        let found = patterns(section, key);
        if found.as_ref().is_some_and(Vec::is_empty) {
            section.invalid(key, "allows nothing: name one, or remove the key for all");
        }
        found.unwrap_or_default()
    });
    let mut read_only = false;
    section.flag_into("read_only", &mut read_only);
    let fields = fields(section);
    let rule = Rule {
        name: name.map_or_else(|| format!("policy {number}"), |found| found.value),
        place: section.place(),
        identities: identities?,
        upstreams,
        services,
        methods,
        read_only,
        fields: fields?,
    };
    section.finish();
    Some(rule)
}

fn patterns(section: &Section<'_>, key: &str) -> Option<Vec<Pattern>> {
    let found = section.texts(key)?.into_iter();
    Some(found.map(|one| Pattern::new(&one.value)).collect())
}

/// Reads the fields, each with a pattern or a list of them.
fn fields(section: &Section<'_>) -> Option<Vec<(String, Vec<ValuePattern>)>> {
    let found = section.text_map("fields")?.into_iter();
    Some(
        found
            .map(|(field, values): (String, Vec<Found<String>>)| {
                let patterns = values.into_iter().map(|one| ValuePattern::new(&one.value));
                (field, patterns.collect())
            })
            .collect(),
    )
}

/// Reads `[audit]`.
pub(super) fn read_audit(section: &Section<'_>) -> AuditSettings {
    let mut log = true;
    section.flag_into("log", &mut log);
    let file = section.new_path("file");
    if !log && file.is_none() {
        section.invalid(
            "log",
            "set `file`, or remove the key: audit lines go nowhere",
        );
    }
    section.finish();
    AuditSettings { log, file }
}

impl Config {
    /// Compiles the rules; none without a rule.
    ///
    /// # Errors
    ///
    /// Returns the rules that name an upstream, an rpc or a field that does not exist.
    pub fn policy(&self, contract: &Contract) -> Result<Option<Policy>, Vec<Problem>> {
        if self.policy.is_empty() {
            return Ok(None);
        }
        let upstreams: Vec<&str> = self.upstreams.iter().map(|u| &*u.name).collect();
        let subject = Subject {
            methods: &contract.methods(),
            upstreams: &upstreams,
        };
        let policy = policy::compile(&self.policy, subject);
        policy.map(Some).map_err(|problems| {
            let problem = |(index, key, problem)| self.problem_of_rule(index, key, problem);
            problems.into_iter().map(problem).collect()
        })
    }

    /// Returns warnings of rules for client tokens that do not exist. Not errors: tokens and
    /// rules change one after the other, and a token that is revoked must not prevent a restart.
    pub(super) fn unknown_tokens(&self) -> Vec<Problem> {
        let tokens: Vec<&str> = self.client_tokens.iter().map(|t| &*t.name).collect();
        let unknown = policy::unknown_tokens(&self.policy, &tokens).into_iter();
        let problem = |(index, problem)| self.problem_of_rule(index, "identities", problem);
        unknown.map(problem).collect()
    }

    fn problem_of_rule(&self, index: usize, key: &str, problem: String) -> Problem {
        let place = &self.policy[index].place;
        let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
        Problem {
            file: file.to_owned(),
            line: line.parse().ok(),
            key: format!("policy.{key}"),
            problem,
        }
    }
}
