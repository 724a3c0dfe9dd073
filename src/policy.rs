//! What each identity may do: rules that allow calls. Without a rule, each client that is let in
//! may do everything; with one, what no rule allows is denied.
//!
//! The rules are compiled at start into a table per rpc, so that a call looks at the rules that
//! could allow it, and at no others. `server::dispatcher` checks a call before anything is sent,
//! `drawbridge check --as` shows the same decision.

mod compile;
mod pattern;

use std::collections::HashMap;
use std::fmt;

use drawbridge_transcoder::contract::{NamedField, Unnamed};

pub use self::compile::{Subject, compile, unknown_tokens};
pub use self::pattern::{Pattern, ValuePattern};
use crate::downstream::Identity;
use crate::error::Error;

/// The text that matches clients without an identity, in `identities` of a rule. No pattern with
/// `*` does.
pub const ANONYMOUS: &str = "anonymous";

/// A rule of the configuration. It allows the calls that match all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, or `policy 2` by its place among the rules.
    pub name: String,
    /// Where it is: `drawbridge.toml:12`.
    pub place: String,
    /// Whose calls: patterns of identities.
    pub identities: Vec<Pattern>,
    /// By which upstreams. Empty: by all.
    pub upstreams: Vec<Pattern>,
    /// Of which services. Empty: of all.
    pub services: Vec<Pattern>,
    /// Of which rpcs. Empty: of all.
    pub methods: Vec<Pattern>,
    /// Whether only rpcs without side effects.
    pub read_only: bool,
    /// Only for resources that these fields of the request name.
    pub fields: Vec<(String, Vec<ValuePattern>)>,
}

/// The compiled rules.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    /// By gRPC path.
    methods: HashMap<Box<str>, MethodTable>,
}

/// The rules that could allow calls of one rpc.
#[derive(Debug, Default)]
struct MethodTable {
    own: Vec<Grant>,
    /// Of a watch that begins with a call: the rules that could allow that call, too.
    start: Option<(Box<str>, Vec<Grant>)>,
}

/// One rule as it applies to one rpc.
#[derive(Debug)]
struct Grant {
    /// Its index in `Policy::rules`.
    rule: usize,
    /// The fields that must have one of these values. Empty: any call.
    fields: Vec<(NamedField, Vec<ValuePattern>)>,
}

/// A call, as far as a policy looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The client; none if it has not authenticated itself.
    pub identity: Option<&'a Identity>,
    /// The gRPC path.
    pub path: &'a str,
    /// The upstream.
    pub upstream: &'a str,
}

/// The request of a call.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// It is not read yet.
    NotRead,
    /// As the client has sent it.
    OfClient(&'a [u8]),
    /// With what a name lookup has found.
    LookedUp(&'a [u8]),
}

/// Why a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Whether that depends on the request, which is not read yet.
    pub by_request: bool,
}

/// Why a call is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The identity.
    pub identity: Box<str>,
    /// The rule that comes closest; none if no rule is about such calls.
    pub rule: Option<(Box<str>, Box<str>)>,
    /// The text for the client.
    pub problem: String,
}

impl Policy {
    /// Returns which rule allows a call.
    ///
    /// # Errors
    ///
    /// Returns why none does.
    pub fn check(&self, call: Call<'_>, request: Request<'_>) -> Result<Allowed<'_>, Denied> {
        let Some(table) = self.methods.get(call.path) else {
            return Err(self.denied(call, None));
        };
        let own = self.decide(&table.own, call, request)?;
        let Some((start, grants)) = &table.start else {
            return Ok(own);
        };
        // The first call of a watch changes something: it needs the rules of its own rpc.
        let started = Call {
            path: start,
            ..call
        };
        let start = self.decide(grants, started, request)?;
        Ok(Allowed {
            by_request: own.by_request || start.by_request,
            ..own
        })
    }

    /// Returns whether some call of an rpc is allowed to a client, by this upstream or, without
    /// a name, by any.
    pub fn may_use(&self, identity: Option<&Identity>, path: &str, upstream: Option<&str>) -> bool {
        let any = |grants: &[Grant]| {
            let mut rules = grants.iter().map(|grant| &self.rules[grant.rule]);
            rules.any(|rule| {
                rule.names(identity)
                    && upstream.is_none_or(|upstream| rule.allows_upstream(upstream))
            })
        };
        let table = self.methods.get(path);
        table.is_some_and(|table| {
            any(&table.own) && table.start.as_ref().is_none_or(|(_, grants)| any(grants))
        })
    }

    /// Returns whether the policy knows an rpc.
    pub fn has_method(&self, path: &str) -> bool {
        self.methods.contains_key(path)
    }

    /// Returns the gRPC paths of all rpcs.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(|path| &**path)
    }

    fn decide(
        &self,
        grants: &[Grant],
        call: Call<'_>,
        request: Request<'_>,
    ) -> Result<Allowed<'_>, Denied> {
        let mut nearest = None;
        let mut by_request = None;
        for grant in grants {
            let rule = &self.rules[grant.rule];
            if !rule.names(call.identity) || !rule.allows_upstream(call.upstream) {
                continue;
            }
            match grant.check(request) {
                Ok(true) => {
                    return Ok(Allowed {
                        rule,
                        by_request: false,
                    });
                }
                Ok(false) => by_request = by_request.or(Some(rule)),
                Err(problem) => nearest = nearest.or(Some((rule, problem))),
            }
        }
        match by_request {
            Some(rule) => Ok(Allowed {
                rule,
                by_request: true,
            }),
            None => Err(self.denied(call, nearest)),
        }
    }

    /// Returns the denial of a call, with the rule that comes closest and what it would allow.
    pub fn denied(&self, call: Call<'_>, nearest: Option<(&Rule, String)>) -> Denied {
        let identity = call.identity.map_or(ANONYMOUS, Identity::as_str);
        let operation = call.path.trim_start_matches('/');
        let problem = match &nearest {
            Some((rule, problem)) => {
                format!(
                    "{identity} may call {operation} by the rule `{}` only if {problem}",
                    rule.name
                )
            }
            None => {
                let of = match call.upstream {
                    "" => String::new(),
                    upstream => format!(" of upstream {upstream}"),
                };
                format!("no rule allows {identity} to call {operation}{of}")
            }
        };
        Denied {
            identity: identity.into(),
            rule: nearest.map(|(rule, _)| (rule.name.as_str().into(), rule.place.as_str().into())),
            problem,
        }
    }
}

impl Rule {
    /// Returns whether the rule is about this client.
    fn names(&self, identity: Option<&Identity>) -> bool {
        self.identities.iter().any(|pattern| match identity {
            Some(identity) => pattern.matches_identity(identity),
            None => pattern.as_str() == ANONYMOUS,
        })
    }

    fn allows_upstream(&self, upstream: &str) -> bool {
        self.upstreams.is_empty() || self.upstreams.iter().any(|one| one.matches(upstream))
    }
}

impl Grant {
    /// Returns whether the rule allows a call with this request; false if that depends on a
    /// request that is not read yet. Fails with what would be allowed.
    fn check(&self, request: Request<'_>) -> Result<bool, String> {
        for (field, patterns) in &self.fields {
            let value = match request {
                Request::NotRead => return Ok(false),
                Request::OfClient(request) => field.of(request),
                Request::LookedUp(request) => field.of_found(request),
            };
            let is_allowed = |value: &str| patterns.iter().any(|pattern| pattern.matches(value));
            let name = &field.path;
            match value {
                Ok(value) if is_allowed(&value) => {}
                Ok(_) => {
                    let values: Vec<&str> = patterns.iter().map(ValuePattern::as_str).collect();
                    return Err(format!("`{name}` is {}", values.join(" or ")));
                }
                Err(Unnamed::Unset) => return Err(format!("`{name}` is set")),
                Err(Unnamed::Ambiguous) => {
                    return Err(format!(
                        "`{name}` is set once, and no field that replaces it"
                    ));
                }
                Err(Unnamed::Other(other)) => {
                    return Err(format!(
                        "`{name}` names the resource, and `{other}` is not set"
                    ));
                }
            }
        }
        Ok(true)
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::PermissionDenied(Box::new(crate::error::PolicyDenial {
            problem: denied.problem,
            identity: denied.identity,
            rule: denied.rule,
        }))
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

#[cfg(test)]
mod tests;
