//! Checks the messages and enums that served rpcs use.

use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::descriptor_set::Set;
use super::diagnostics::{HTTP, Options};
use super::selection::Selection;
use super::{Diagnostic, compile, left_out};
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;
use crate::schema::MessageId;

/// Fails with the problems of the files of served rpcs, and of the types that they use.
pub(super) fn check(
    set: &Set,
    options: &Options,
    selection: &Selection,
) -> Result<(), Vec<Diagnostic>> {
    let served = served(&set.pool, options, selection);
    let mut all: Vec<Diagnostic> = Vec::new();
    let mut roots: Vec<MessageId> = Vec::new();
    for rpc in &served {
        let of_file = set.editions.get(rpc.parent_file().name());
        if let Some(problem) = of_file.filter(|problem| !all.contains(problem)) {
            all.push(problem.clone());
        }
        let types = [rpc.input(), rpc.output()];
        roots.extend(
            types
                .iter()
                .filter_map(|message| set.schema.message_id(message.full_name())),
        );
    }
    for problem in set.problems.used_by(&set.schema, &roots) {
        if !all.contains(&problem) {
            all.push(problem);
        }
    }
    match all.is_empty() {
        true => Ok(()),
        false => Err(all),
    }
}

/// Returns the rpcs that are to be served: those with unreadable options, too.
fn served(
    pool: &DescriptorPool,
    options: &Options,
    selection: &Selection,
) -> Vec<MethodDescriptor> {
    let is_served = |rpc: &MethodDescriptor| {
        let http = options.read::<HttpRule>(&rpc.options(), HTTP);
        let rules = options.read::<MethodRules>(&rpc.options(), "drawbridge.v1.method");
        let (Ok(http), Ok(rules)) = (http, rules) else {
            return true;
        };
        left_out::by_annotations(rpc, http.as_ref(), &rules.unwrap_or_default()).is_none()
    };
    pool.services()
        .filter(|service| !compile::is_own(service))
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(|rpc| selection.selects(rpc.full_name()) && is_served(rpc))
        .collect()
}
