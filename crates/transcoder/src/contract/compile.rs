//! Checks annotations at start, and compiles descriptors into methods. All contradictions
//! are collected, so that one start reports them all.

mod fields;
mod route;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use prost_reflect::{MethodDescriptor, ServiceDescriptor};

use self::fields::{constants, field_named, marks, plans, response_choices, statuses};
use self::route::Route;
use super::bind::Binding;
use super::diagnostics::{Diagnostics, HTTP, Options, check_query};
use super::link::{self, Unlinked};
use super::path_template::Template;
use super::{
    Check, Contract, Diagnostic, Method, Source, action, descriptor_set, download, file_fields,
    health_check, location, merge_pages, paging, upload,
};
use crate::api::drawbridge::v1::{FileRules, MethodRules};
use crate::api::google::api::HttpRule;
use crate::call::Idempotency;
use crate::family::Families;
use crate::schema::{FieldIndex, Schema};

/// Compiles all sources; see [`Contract::compile`].
pub(super) fn compile(
    sources: Vec<Source>,
    families: &Families,
) -> Result<Contract, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut methods: HashMap<Box<str>, Arc<Method>> = HashMap::new();
    let mut origins: HashMap<Box<str>, String> = HashMap::new();
    let mut named_checks = Vec::new();
    for source in &sources {
        let (pool, schema) = match descriptor_set::read(source) {
            Ok((pool, schema)) => (pool, Arc::new(schema)),
            Err(problems) => {
                diagnostics.extend(problems);
                continue;
            }
        };
        let options = Options::of(&pool);
        named_checks.extend(health_check::named(&pool, &options));
        let mut unlinked = Vec::new();
        for service in pool.services().filter(is_served) {
            let name: Box<str> = service.full_name().into();
            if let Some(origin) = origins.get(&name) {
                diagnostics.push(Diagnostic {
                    file: service.parent_file().name().to_owned(),
                    element: name.to_string(),
                    option: "service".to_owned(),
                    problem: format!(
                        "is in two descriptor sets, {origin} and {}: remove one",
                        source.name
                    ),
                });
                continue;
            }
            origins.insert(name, source.name.clone());
            let compiled = Service {
                service: &service,
                schema: &schema,
                options: &options,
                diagnostics: &mut diagnostics,
                unlinked: &mut unlinked,
                families,
            }
            .compile();
            methods.extend(compiled.into_iter().map(|m| (m.path.clone(), m)));
        }
        link::link(unlinked, &schema, &mut methods, &mut diagnostics);
    }
    for method in methods.values() {
        if let Some(check) = &method.check
            && let Err(problem) = check.definitions_in(&methods)
        {
            diagnostics.push(Diagnostic {
                file: String::new(),
                element: method.path[1..].replace('/', "."),
                option: "(drawbridge.v1.method).check".to_owned(),
                problem,
            });
        }
    }
    let health_checks = health_check::compile(named_checks, &methods, &mut diagnostics);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    Ok(Contract {
        methods,
        health_checks,
        descriptor_sets: sources.into_iter().map(|source| source.bytes).collect(),
    })
}

/// Returns whether the service is one of a REST API. The gateway implements those of
/// `drawbridge.v1` and of gRPC itself.
fn is_served(service: &ServiceDescriptor) -> bool {
    let package = service.package_name();
    package != "drawbridge.v1" && package != "grpc" && !package.starts_with("grpc.")
}

struct Service<'a> {
    service: &'a ServiceDescriptor,
    schema: &'a Arc<Schema>,
    options: &'a Options,
    diagnostics: &'a mut Vec<Diagnostic>,
    /// Methods that name other rpcs, to be linked when all are compiled.
    unlinked: &'a mut Vec<Unlinked>,
    families: &'a Families,
}

impl Service<'_> {
    fn compile(mut self) -> Vec<Arc<Method>> {
        let file = self.service.parent_file();
        let rules = self.options.read(&file.options(), "drawbridge.v1.file");
        let mut diagnostics = Diagnostics {
            file: file.name().to_owned(),
            element: file.name().to_owned(),
            all: &mut *self.diagnostics,
        };
        let rules: FileRules = diagnostics
            .value_or_report("(drawbridge.v1.file)", rules)
            .unwrap_or_default();
        let family = if rules.family.is_empty() {
            file.package_name()
        } else {
            &rules.family
        };
        if family.is_empty() {
            diagnostics.report(
                "(drawbridge.v1.file).family",
                "the file has no package: set the family",
            );
        }

        let mut methods = Vec::new();
        for rpc in self.service.methods() {
            match self.rpc(&rpc, family) {
                Some((method, rules)) if Unlinked::is(&rules) => {
                    self.unlinked.push(Unlinked { rpc, method, rules });
                }
                Some((method, _)) => methods.push(Arc::new(method)),
                None => {}
            }
        }
        methods
    }

    fn diagnostics(&mut self, rpc: &MethodDescriptor) -> Diagnostics<'_> {
        Diagnostics::of_rpc(rpc, self.diagnostics)
    }

    /// Compiles one rpc except for the options that name other rpcs.
    fn rpc(&mut self, rpc: &MethodDescriptor, family: &str) -> Option<(Method, MethodRules)> {
        let family_rules = (self.families)(family);
        let schema = self.schema;
        let options = rpc.options();
        let http = self.options.read(&options, HTTP);
        let rules = self.options.read(&options, "drawbridge.v1.method");
        let mut diagnostics = self.diagnostics(rpc);
        let http: Option<HttpRule> = diagnostics.value_or_report(HTTP, http);
        let rules: MethodRules = diagnostics
            .value_or_report("(drawbridge.v1.method)", rules)
            .unwrap_or_default();

        if !check_streaming(rpc, &rules, &mut diagnostics) {
            return None;
        }
        let Some(http) = http else {
            diagnostics.report(
                HTTP,
                "is missing: annotate the REST call, for example `get: \"/v1/things/{id}\"`",
            );
            return None;
        };
        let input = schema.message_id(rpc.input().full_name());
        let output = schema.message_id(rpc.output().full_name());
        let (Some(input), Some(output)) = (input, output) else {
            diagnostics.report(HTTP, "the types of the rpc are not in the descriptor set");
            return None;
        };

        let mut route = Route {
            schema,
            input,
            rules: &rules,
            diagnostics: &mut diagnostics,
        };
        let (verb, text) = route.verb_and_template(&http)?;
        let idempotency = idempotency(rpc, &verb);
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(problem) => {
                route
                    .diagnostics
                    .report(HTTP, format!("path `{text}`: {problem}"));
                return None;
            }
        };
        let action = rules
            .action
            .as_ref()
            .map(|rule| action::compile(rule, &template, schema, input, route.diagnostics));
        let path = route.path(template);
        let other_paths = route.other_paths();
        let body = route.body(&http, action.as_ref());
        let counts = route.counts(&body);
        let at_least_one = route.groups();
        let check = rules.check.as_ref().and_then(|rule| {
            Check::compile(
                rule,
                schema,
                input,
                (family, family_rules),
                action.as_ref(),
                &mut diagnostics,
            )
        });
        let response_choices = response_choices(schema, output, &rules, &mut diagnostics);
        let response_body = if rpc.is_server_streaming() {
            // A stream decodes the replies of the rpc that it calls.
            None
        } else {
            field_named(
                schema,
                output,
                &http.response_body,
                &mut diagnostics,
                "response_body",
            )
        };
        let mut also_success = statuses(&rules, &mut diagnostics);
        let location = if rules.location.is_empty() {
            None
        } else {
            also_success.extend([301, 302, 303, 307, 308]);
            location::compile(&rules.location, schema, output, &mut diagnostics)
        };
        let paging = match &rules.paging {
            Some(_) if rpc.is_server_streaming() => {
                diagnostics.report_rule(
                    "paging",
                    "is for unary rpcs: a stream names the list rpc in \
                                            `pages`",
                );
                None
            }
            Some(rule) => paging::compile(rule, schema, (input, output), &mut diagnostics),
            None => None,
        };
        let upload = upload::compile(&rules, &http, &verb, (schema, input), &mut diagnostics);
        let download = download::compile(&rules, &http, (schema, output), &mut diagnostics);
        if let Err(problem) = check_query(&rules.constant_query) {
            diagnostics.report_rule("constant_query", problem);
        }
        let edited: Vec<FieldIndex> = action
            .iter()
            .flat_map(|action| &action.edits)
            .map(|edit| edit.field)
            .collect();
        let marks = marks(schema, input, &path, &body, &rules, &mut diagnostics);
        let constant_members = constants(schema, input, &body, &marks, &rules, &mut diagnostics);
        let plans = plans(
            schema,
            input,
            &path,
            &body,
            (&marks, &edited),
            &mut diagnostics,
        );
        let mut method = Method {
            path: format!("/{}/{}", self.service.full_name(), rpc.name()).into(),
            service: self.service.full_name().into(),
            name: rpc.name().into(),
            family: family.into(),
            family_rules,
            verb: verb.clone(),
            template: text.into(),
            idempotency,
            absent_in: rules.absent_in.iter().map(|d| d.as_str().into()).collect(),
            unverified_in: rules
                .unverified_in
                .iter()
                .map(|d| d.as_str().into())
                .collect(),
            also_success,
            input,
            output,
            schema: schema.clone(),
            watch: None,
            log: None,
            action,
            resolve: None,
            paging,
            pages: None,
            upload,
            download,
            anonymous: rules.anonymous,
            location,
            check,
            response_choices,
            merge_pages: None,
            binding: Binding {
                verb,
                idempotency,
                schema: schema.clone(),
                input,
                path,
                constant_query: rules.constant_query.as_str().into(),
                body,
                constant_members,
                counts,
                at_least_one,
                other_paths,
                plans,
                additional: Vec::new(),
            },
            response_body,
            called: None,
            watched_member: OnceLock::new(),
        };
        let mut diagnostics = self.diagnostics(rpc);
        method.binding.additional =
            additional_bindings(rpc, &http, &rules, &method, &mut diagnostics);
        if let Some(rule) = &rules.merge_pages {
            let mut diagnostics = self.diagnostics(rpc);
            if rpc.is_server_streaming() {
                diagnostics.report_rule(
                    "merge_pages",
                    "is for unary rpcs: a watch merges the pages that its poll returns",
                );
            }
            if rules.paging.is_some() {
                diagnostics.report_rule(
                    "merge_pages",
                    "cannot be combined with `paging`: remove one of them",
                );
            }
            method.merge_pages = merge_pages::compile(rule, &method, &mut diagnostics);
        }
        Some((method, rules))
    }
}

/// Compiles the `additional_bindings` of an rpc.
fn additional_bindings(
    rpc: &MethodDescriptor,
    http: &HttpRule,
    rules: &MethodRules,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<Binding> {
    if !http.additional_bindings.is_empty() && !rules.path_in.is_empty() {
        diagnostics.report_rule("path_in", "cannot be combined with `additional_bindings`");
    }
    let mut bindings = Vec::new();
    for (at, rule) in http.additional_bindings.iter().enumerate() {
        let before = diagnostics.all.len();
        let problem = if !rule.additional_bindings.is_empty() {
            Some("must not have `additional_bindings` itself")
        } else if rule.response_body != http.response_body {
            Some("must have the `response_body` of the rule that contains it")
        } else if rules.upload.is_some() && !rule.body.is_empty() {
            Some("must not have a `body`: the rpc uploads a file")
        } else {
            None
        };
        match problem {
            Some(problem) => diagnostics.report(HTTP, problem),
            None => bindings.extend(additional_binding(rpc, rule, rules, method, diagnostics)),
        }
        for diagnostic in &mut diagnostics.all[before..] {
            let problem = std::mem::take(&mut diagnostic.problem);
            diagnostic.problem = format!("additional binding {}: {problem}", at + 1);
        }
    }
    bindings
}

fn additional_binding(
    rpc: &MethodDescriptor,
    http: &HttpRule,
    rules: &MethodRules,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Binding> {
    let (schema, input) = (&method.schema, method.input);
    let mut route = Route {
        schema,
        input,
        rules,
        diagnostics,
    };
    let (verb, text) = route.verb_and_template(http)?;
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(problem) => {
            let problem = format!("path `{text}`: {problem}");
            route.diagnostics.report(HTTP, problem);
            return None;
        }
    };
    let path = route.path(template);
    let body = route.body(http, method.action.as_ref());
    let counts = route.counts(&body);
    let edited: Vec<FieldIndex> = method
        .action
        .iter()
        .flat_map(|action| &action.edits)
        .map(|edit| edit.field)
        .collect();
    let marks = marks(schema, input, &path, &body, rules, diagnostics);
    let constant_members = constants(schema, input, &body, &marks, rules, diagnostics);
    let plans = plans(schema, input, &path, &body, (&marks, &edited), diagnostics);
    Some(Binding {
        idempotency: idempotency(rpc, &verb),
        verb,
        schema: schema.clone(),
        input,
        path,
        constant_query: method.binding.constant_query.clone(),
        body,
        constant_members,
        counts,
        at_least_one: method.binding.at_least_one.clone(),
        other_paths: Vec::new(),
        plans,
        additional: Vec::new(),
    })
}

/// Returns whether the rpc streams in the directions that its options need, and reports
/// where it does not.
fn check_streaming(
    rpc: &MethodDescriptor,
    rules: &MethodRules,
    diagnostics: &mut Diagnostics<'_>,
) -> bool {
    if rpc.is_client_streaming() && rules.upload.is_none() {
        diagnostics.report(
            "stream",
            "a client-streaming rpc must be an upload: set (drawbridge.v1.method).upload",
        );
        return false;
    }
    if !file_fields::check_streaming(rpc, rules, diagnostics) {
        return false;
    }
    if rules.watch.is_some() && !rules.pages.is_empty() {
        diagnostics.report_rule("pages", "the rpc is already a watch: remove one of them");
        return false;
    }
    match (rpc.is_server_streaming(), &rules.watch) {
        (true, None) if !rules.pages.is_empty() || rules.download.is_some() => {}
        (false, None) if !rules.pages.is_empty() => {
            diagnostics.report_rule(
                "pages",
                "a stream of pages is server-streaming: write `returns (stream ...)`",
            );
            return false;
        }
        (true, None) => {
            diagnostics.report_rule(
                "watch",
                "a server-streaming rpc must be a watch, a stream of pages or a download: set \
                 `watch`, `pages` or `download`",
            );
            return false;
        }
        (false, Some(_)) => {
            diagnostics.report_rule(
                "watch",
                "a watch is server-streaming: write `returns (stream ...)`",
            );
            return false;
        }
        _ => {}
    }
    true
}

/// Returns protobuf's `idempotency_level`; without one, the HTTP method decides. Source:
/// RFC 9110, section 9.2.
fn idempotency(rpc: &MethodDescriptor, verb: &http::Method) -> Idempotency {
    use prost_types::method_options::IdempotencyLevel;
    let options = rpc.method_descriptor_proto().options.as_ref();
    match options.and_then(|options| options.idempotency_level) {
        Some(level) => match IdempotencyLevel::try_from(level) {
            Ok(IdempotencyLevel::NoSideEffects) => Idempotency::NoSideEffects,
            Ok(IdempotencyLevel::Idempotent) => Idempotency::Idempotent,
            Ok(IdempotencyLevel::IdempotencyUnknown) | Err(_) => Idempotency::NonIdempotent,
        },
        None if verb.is_safe() => Idempotency::NoSideEffects,
        None if verb.is_idempotent() => Idempotency::Idempotent,
        None => Idempotency::NonIdempotent,
    }
}
