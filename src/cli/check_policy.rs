//! `drawbridge check --as`: which rule of the policy decides about a call.

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::Failure;
use crate::config::Config;
use crate::contract::Contract;
use crate::downstream::{Identity, IdentityKind};
use crate::policy::{self, ANONYMOUS, Policy};
use crate::spelling::nearest;
use drawbridge_transcoder::contract::Method;

/// The call to decide about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) identity: &'a str,
    pub(super) method: &'a str,
    /// The request, as JSON.
    pub(super) json: Option<&'a str>,
    /// The upstream; the default of the family without one.
    pub(super) upstream: Option<&'a str>,
}

/// A decision, and its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) is_allowed: bool,
    pub(super) text: String,
}

/// Decides about the call as the gateway would.
pub(super) fn decide(config: &Config, question: Question<'_>) -> Result<Decision, Failure> {
    let contract = config.contract()?;
    let policy = config.policy(&contract)?;
    let identity = identity(question.identity)?;
    let method = method(&contract, question.method)?;
    let operation = &method.path[1..];
    let Some(policy) = policy else {
        return Ok(Decision {
            is_allowed: true,
            text: format!("allow: {operation}: there is no [[policy]]"),
        });
    };
    let upstream = upstream(config, method, question.upstream)?;
    let call = policy::Call {
        identity: identity.as_ref(),
        path: &method.path,
        upstream,
    };
    let request = request(&contract, method, question.json.unwrap_or("{}"))?;
    Ok(decision(&policy, call, question.json, &request))
}

fn decision(
    policy: &Policy,
    call: policy::Call<'_>,
    json: Option<&str>,
    request: &[u8],
) -> Decision {
    let subject = format!("{} of upstream {}", &call.path[1..], call.upstream);
    match policy.check(call, policy::Request::OfClient(request)) {
        Ok(allowed) => Decision {
            is_allowed: true,
            text: format!(
                "allow: {subject}: {}: rule `{}`",
                allowed.rule.place, allowed.rule.name
            ),
        },
        Err(denied) => {
            let place = match &denied.rule {
                Some((_, place)) => format!("{place}: "),
                None => String::new(),
            };
            let hint = match json {
                None if denied.rule.is_some() => " (give the request as JSON)",
                _ => "",
            };
            Decision {
                is_allowed: false,
                text: format!("deny: {subject}: {place}{}{hint}", denied.problem),
            }
        }
    }
}

fn identity(text: &str) -> Result<Option<Identity>, Failure> {
    if text == ANONYMOUS {
        return Ok(None);
    }
    Identity::parse(text).map(Some).ok_or_else(|| {
        let kinds = IdentityKind::ALL.map(|kind| format!("{}:NAME", kind.word()));
        Failure::Usage(format!(
            "--as: {text} is not an identity: use {} or {ANONYMOUS}",
            kinds.join(", ")
        ))
    })
}

/// Finds an rpc by its full name, or by an end of it: `StackService/GetStack`.
fn method<'c>(contract: &'c Contract, name: &str) -> Result<&'c Method, Failure> {
    let methods = contract.methods();
    let end = format!(".{name}");
    let full = |method: &&&std::sync::Arc<Method>| {
        method.path[1..] == *name || method.path.ends_with(&end)
    };
    let mut found = methods.iter().filter(full);
    match (found.next(), found.next()) {
        (Some(method), None) => Ok(method),
        (Some(one), Some(other)) => Err(Failure::Usage(format!(
            "{name} is ambiguous: {} or {}",
            &one.path[1..],
            &other.path[1..]
        ))),
        (None, _) => {
            let shorts: Vec<String> = methods
                .iter()
                .map(|method| {
                    let service = method.service.rsplit('.').next().unwrap_or_default();
                    format!("{service}/{}", method.name)
                })
                .collect();
            let near = nearest(name, shorts.iter().map(String::as_str));
            Err(Failure::Usage(format!("no rpc is called {name}{near}")))
        }
    }
}

fn upstream<'c>(
    config: &'c Config,
    method: &Method,
    name: Option<&str>,
) -> Result<&'c str, Failure> {
    let mut of_family = config
        .upstreams
        .iter()
        .filter(|u| *u.family == *method.family);
    let found = match name {
        Some(name) => of_family.find(|u| u.name == name),
        None => match of_family.clone().collect::<Vec<_>>()[..] {
            [only] => Some(only),
            _ => of_family.find(|u| u.is_default),
        },
    };
    found.map(|u| &*u.name).ok_or_else(|| {
        let family = &method.family;
        Failure::Usage(match name {
            Some(name) => format!("--upstream: {name} does not serve the family {family}"),
            None => format!("name one of the upstreams of the family {family} with --upstream"),
        })
    })
}

fn request(contract: &Contract, method: &Method, json: &str) -> Result<Vec<u8>, Failure> {
    let invalid = |problem: String| Failure::Usage(format!("the request: {problem}"));
    for set in contract.descriptor_sets() {
        let pool = DescriptorPool::decode(&**set).map_err(|e| invalid(e.to_string()))?;
        let service = pool.get_service_by_name(&method.service);
        let found = service.and_then(|s| s.methods().find(|m| m.name() == &*method.name));
        if let Some(found) = found {
            let mut json = serde_json::Deserializer::from_str(json);
            let message = DynamicMessage::deserialize(found.input(), &mut json);
            let message = message.map_err(|e| invalid(e.to_string()))?;
            json.end().map_err(|e| invalid(e.to_string()))?;
            return Ok(message.encode_to_vec());
        }
    }
    Err(invalid(format!(
        "no descriptor set has {}",
        &method.path[1..]
    )))
}
