//! Build info, services and template versions: docs/apis/heat.md, "Meta" and
//! "Templates".

use serde_json::{Value, json};

use super::super::message::Response;
use super::template::VERSIONS;
use super::{Context, Heat, boolean_parameter, forbidden};

pub(super) fn build_info(_: &mut Heat, _: &Context) -> Result<Response, Response> {
    let unknown = json!({"revision": "unknown"});
    Ok(Response::ok(json!({"api": unknown, "engine": unknown})))
}

/// Requires an administrator, which the sandbox does not have.
pub(super) fn services(_: &mut Heat, _: &Context) -> Result<Response, Response> {
    Err(forbidden("service:index"))
}

pub(super) fn versions(_: &mut Heat, _: &Context) -> Result<Response, Response> {
    let cfn = [
        "AWSTemplateFormatVersion.2010-09-09",
        "HeatTemplateFormatVersion.2012-12-12",
    ]
    .map(|version| json!({"version": version, "type": "cfn", "aliases": []}));
    let hot = VERSIONS.iter().map(|(date, name)| {
        let aliases: Vec<String> = name
            .iter()
            .map(|name| format!("heat_template_version.{name}"))
            .collect();
        json!({"version": format!("heat_template_version.{date}"), "type": "hot", "aliases": aliases})
    });
    let all: Vec<Value> = cfn.into_iter().chain(hot).collect();
    Ok(Response::ok(json!({"template_versions": all})))
}

/// A template function: its name, the versions that have it, and whether it belongs to
/// conditions.
struct Function {
    name: &'static str,
    about: &'static str,
    since: &'static str,
    condition: bool,
}

const fn function(name: &'static str, since: &'static str, about: &'static str) -> Function {
    Function {
        name,
        about,
        since,
        condition: false,
    }
}

const fn condition(name: &'static str, about: &'static str) -> Function {
    Function {
        name,
        about,
        since: "2016-10-14",
        condition: true,
    }
}

/// In the order in which Heat lists them for 2018-08-31.
const FUNCTIONS: [Function; 25] = [
    function("get_attr", "2013-05-23", "An attribute of a resource."),
    function(
        "get_file",
        "2013-05-23",
        "The text of a file that came along.",
    ),
    function("get_param", "2013-05-23", "The value of a parameter."),
    function("get_resource", "2013-05-23", "The reference of a resource."),
    function("list_join", "2013-05-23", "Lists of texts as one text."),
    function("repeat", "2015-04-30", "A value for each item of lists."),
    function(
        "resource_facade",
        "2013-05-23",
        "Data of the resource that a stack stands for.",
    ),
    function("str_replace", "2013-05-23", "A text with parts replaced."),
    function("digest", "2015-04-30", "The digest of a value."),
    function("str_split", "2015-10-15", "A text as a list."),
    function("map_merge", "2016-04-08", "Several maps as one."),
    function("yaql", "2016-10-14", "What an expression makes of data."),
    function(
        "map_replace",
        "2016-10-14",
        "A map with keys and values replaced.",
    ),
    function("if", "2016-10-14", "One of two values, by a condition."),
    function("filter", "2017-02-24", "A list without some values."),
    function(
        "str_replace_strict",
        "2017-02-24",
        "The same as str_replace; all must occur.",
    ),
    function("make_url", "2017-09-01", "A URL of its parts."),
    function("list_concat", "2017-09-01", "Several lists as one."),
    function(
        "str_replace_vstrict",
        "2017-09-01",
        "The same as str_replace_strict; none empty.",
    ),
    function(
        "list_concat_unique",
        "2017-09-01",
        "Several lists as one, nothing twice.",
    ),
    function("contains", "2017-09-01", "Whether a list has a value."),
    condition("equals", "Whether two values are equal."),
    condition("not", "The contrary of a condition."),
    condition("and", "Whether all conditions hold."),
    condition("or", "Whether a condition holds."),
];

/// A version has the functions of all earlier versions. Functions that only the oldest
/// two and CloudFormation have are not listed.
pub(super) fn functions(_: &mut Heat, context: &Context) -> Result<Response, Response> {
    let with_conditions = boolean_parameter(context, "with_condition_func", ".")?.unwrap_or(false);
    let wanted = context.segment(0);
    let version = wanted
        .strip_prefix("heat_template_version.")
        .and_then(|wanted| {
            let mut known = VERSIONS.iter();
            known.find(|(date, name)| *date == wanted || *name == Some(wanted))
        });
    let Some((date, alias)) = version else {
        return Err(unknown_version(wanted));
    };
    // Observed: the list for a version's alias includes the condition functions.
    let with_conditions = with_conditions || alias.is_some_and(|alias| wanted.ends_with(alias));
    let found: Vec<Value> = FUNCTIONS
        .iter()
        .filter(|function| function.since <= *date && (with_conditions || !function.condition))
        .map(|function| json!({"functions": function.name, "description": function.about}))
        .collect();
    Ok(Response::ok(json!({"template_functions": found})))
}

fn unknown_version(version: &str) -> Response {
    let message = format!("Template with version {version} not found");
    super::fault(http::StatusCode::NOT_FOUND, "NotFound", Some(&message))
}
