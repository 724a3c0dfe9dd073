//! What `upload` and `download` have in common.

use prost_reflect::MethodDescriptor;

use super::diagnostics::Diagnostics;
use crate::api::drawbridge::v1::MethodRules;
use crate::schema::{Field, Kind, MessageId, Schema};

/// Returns whether the rpc streams in the directions that `upload` and `download` need,
/// without other streaming options. Reports where it does not.
pub(super) fn check_streaming(
    rpc: &MethodDescriptor,
    rules: &MethodRules,
    diagnostics: &mut Diagnostics<'_>,
) -> bool {
    let before = diagnostics.all.len();
    if rules.upload.is_some() {
        if !rpc.is_client_streaming() || rpc.is_server_streaming() {
            diagnostics.report_rule(
                "upload",
                "an upload is client-streaming only: write `(stream ...) returns (...)`",
            );
        }
        report_combinations(
            diagnostics,
            "upload",
            &others(rules, rules.download.is_some()),
        );
    } else if rules.download.is_some() {
        if !rpc.is_server_streaming() {
            diagnostics.report_rule(
                "download",
                "a download is server-streaming: write `returns (stream ...)`",
            );
        }
        report_combinations(diagnostics, "download", &others(rules, false));
    }
    diagnostics.all.len() == before
}

fn others(rules: &MethodRules, download: bool) -> [(&'static str, bool); 6] {
    [
        ("download", download),
        ("watch", rules.watch.is_some()),
        ("pages", !rules.pages.is_empty()),
        ("paging", rules.paging.is_some()),
        ("merge_pages", rules.merge_pages.is_some()),
        ("location", !rules.location.is_empty()),
    ]
}

/// Reports options that cannot be combined with `rule`.
pub(super) fn report_combinations(
    diagnostics: &mut Diagnostics<'_>,
    rule: &str,
    others: &[(&str, bool)],
) {
    for (other, _) in others.iter().filter(|(_, is_set)| *is_set) {
        let problem = format!("cannot be combined with `{other}`: remove one of them");
        diagnostics.report_rule(rule, problem);
    }
}

/// Finds the single field of this name and kind, or reports that there is none.
pub(super) fn field<'a>(
    schema: &'a Schema,
    id: MessageId,
    rule: &str,
    name: &str,
    kind: Kind,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<&'a Field> {
    let message = schema.message(id);
    let found = message
        .field(name)
        .map(|(_, field)| field)
        .filter(|field| field.is_single() && field.kind == kind);
    if found.is_none() {
        let kind = match kind {
            Kind::String => "string",
            _ => "bytes",
        };
        let problem = format!("{} has no {kind} field `{name}`", message.name);
        diagnostics.report_rule(rule, problem);
    }
    found
}
