//! Checks `body_media_type`.

use crate::api::drawbridge::v1::MethodRules;
use crate::contract::bind::{Binding, Body};
use crate::contract::diagnostics::Diagnostics;
use crate::contract::raw_body::media_type;

const RULE: &str = "body_media_type";

/// Reports a `body_media_type` that is invalid, or that no body of the rpc has.
pub(super) fn check(rules: &MethodRules, binding: &Binding, diagnostics: &mut Diagnostics<'_>) {
    if rules.body_media_type.is_empty() {
        return;
    }
    if rules.upload.is_some() {
        diagnostics.report_rule(
            RULE,
            "cannot be combined with `upload`: its body is multipart",
        );
        return;
    }
    let mut is_raw = false;
    for body in std::iter::once(binding)
        .chain(&binding.additional)
        .map(|binding| &binding.body)
    {
        match body {
            Body::Raw(raw) => {
                is_raw = true;
                if raw.is_text && !is_utf8(&rules.body_media_type) {
                    diagnostics.report_rule(RULE, "a string is UTF-8: set no other charset");
                }
            }
            Body::None => {}
            Body::Constant(_) | Body::Fields | Body::Field { .. } => {
                diagnostics.report_rule(
                    RULE,
                    "the body is JSON: name a field of type bytes, string or \
                     google.api.HttpBody as the `body`",
                );
                return;
            }
        }
    }
    if !is_raw {
        diagnostics.report_rule(
            RULE,
            "the rpc has no body: name a field of type bytes, string or google.api.HttpBody as \
             the `body`",
        );
    }
    if media_type(&rules.body_media_type).is_none() {
        let problem = format!(
            "`{}` is not a media type such as application/yaml",
            rules.body_media_type
        );
        diagnostics.report_rule(RULE, problem);
    }
}

/// Returns whether the media type names no charset but UTF-8.
fn is_utf8(media_type: &str) -> bool {
    media_type.split(';').skip(1).all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset")
            || ["utf-8", "utf8", "us-ascii"]
                .iter()
                .any(|one| value.eq_ignore_ascii_case(one))
    })
}
