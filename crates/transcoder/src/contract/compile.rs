//! Checks annotations at start, and compiles descriptors into methods. All contradictions
//! are collected, so that one start reports them all.

mod additional_bindings;
mod fields;
mod media_type;
mod route;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use self::additional_bindings::additional_bindings;
use self::fields::{constants, field_named, marks, plans, response_choices, statuses};
use self::route::Route;
use super::bind::Binding;
use super::descriptor_set::{Set, incomplete};
use super::diagnostics::{Diagnostics, HTTP, Options, check_query};
use super::left_out::{self, LeftOut, LeftOutReason};
use super::link::{self, Unlinked};
use super::path_template::Template;
use super::raw_body::RawResponse;
use super::selection::{self, Selection};
use super::{
    Check, Contract, Diagnostic, Method, Source, action, descriptor_set, download, file_fields,
    health_check, location, merge_pages, paging, served_types, upload,
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
    let mut compiler = Compiler {
        families,
        diagnostics: Vec::new(),
        methods: HashMap::new(),
        health_checks: Vec::new(),
        left_out: BTreeMap::new(),
        unused: Vec::new(),
        definitions: HashMap::new(),
    };
    for source in &sources {
        // The descriptor library indexes its tables by numbers of the set. A set that no
        // compiler has written must not end the process.
        let compiled = catch_unwind(AssertUnwindSafe(|| compiler.source(source)));
        if compiled.is_err() {
            compiler
                .diagnostics
                .push(incomplete(source, "its descriptors are contradictory"));
        }
    }
    let Compiler {
        mut diagnostics,
        methods,
        health_checks,
        mut left_out,
        unused,
        ..
    } = compiler;
    for method in methods.values() {
        if let Some(check) = &method.check
            && let Err(problem) = check.definitions_in(&methods, &left_out)
        {
            diagnostics.push(Diagnostic {
                file: String::new(),
                element: method.path[1..].replace('/', "."),
                option: "(drawbridge.v1.method).check".to_owned(),
                problem,
            });
        }
    }
    let health_checks = health_check::compile(health_checks, &methods, &left_out, &mut diagnostics);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    left_out.retain(|path, _| !methods.contains_key(path));
    link_documents(&methods);
    Ok(Contract {
        methods,
        health_checks,
        left_out,
        unused,
        descriptor_sets: sources.into_iter().map(|source| source.bytes).collect(),
    })
}

/// Finds the rpcs that read the documents of two-step calls, so that a document is edited
/// only if it is a response of its rpc. The rpc may be missing.
fn link_documents(methods: &HashMap<Box<str>, Arc<Method>>) {
    for method in methods.values() {
        let Some(template) = method.document_template() else {
            continue;
        };
        let mut reads = methods.values().filter(|read| {
            read.verb == http::Method::GET
                && read.family == method.family
                && !read.is_stream()
                && Arc::ptr_eq(&read.schema, &method.schema)
                && super::path_template::shape(&read.template) == template
        });
        // Of several, none describes the document for certain.
        if let (Some(read), None) = (reads.next(), reads.next()) {
            let _ = method.document_read.set(Arc::clone(read));
        }
    }
}

/// What the descriptor sets compiled so far contain.
struct Compiler<'a> {
    families: &'a Families,
    diagnostics: Vec<Diagnostic>,
    methods: HashMap<Box<str>, Arc<Method>>,
    health_checks: Vec<health_check::Named>,
    left_out: BTreeMap<Box<str>, LeftOut>,
    /// The descriptor sets of which no rpc is served.
    unused: Vec<Diagnostic>,
    /// The rpcs to serve by gRPC path, each with the descriptor set that defines it.
    definitions: HashMap<Box<str>, (Definition, String)>,
}

/// What must be equal where two descriptor sets define an rpc: both may import its file.
#[derive(PartialEq)]
struct Definition {
    types: [Box<str>; 2],
    streams: [bool; 2],
    http: Option<HttpRule>,
    rules: MethodRules,
}

impl Compiler<'_> {
    fn source(&mut self, source: &Source) {
        let set = match descriptor_set::read(source) {
            Ok(set) => set,
            Err(problems) => return self.diagnostics.extend(problems),
        };
        let options = Options::of(&set.pool);
        if let Err(problems) = served_types::check(&set, &options, &source.selection) {
            return self.diagnostics.extend(problems);
        }
        let Set {
            pool,
            mut schema,
            problems,
            ..
        } = set;
        problems.hide(&mut schema);
        let schema = Arc::new(schema);
        self.health_checks
            .extend(health_check::named(&pool, &options));
        let mut compiled = Compiled::default();
        for service in pool
            .services()
            .filter(|service| !selection::is_own(service))
        {
            Service {
                service: &service,
                schema: &schema,
                options: &options,
                diagnostics: &mut self.diagnostics,
                families: self.families,
                selection: &source.selection,
                definitions: &mut self.definitions,
                source,
                compiled: &mut compiled,
            }
            .compile();
        }
        self.check_selection(source, &pool, &compiled);
        if compiled.methods.is_empty() {
            self.unused
                .push(left_out::unused(source, &compiled.left_out));
        }
        let Compiled {
            mut methods,
            unlinked,
            left_out,
        } = compiled;
        link::link(unlinked, &mut methods, &left_out, &mut self.diagnostics);
        for (path, method) in methods {
            self.methods.entry(path).or_insert(method);
        }
        for (path, rpc) in left_out {
            self.left_out.entry(path).or_insert(rpc);
        }
    }

    /// Reports entries of the selection that are not in the set, and those of `include` of
    /// which no rpc can be served.
    fn check_selection(&mut self, source: &Source, pool: &DescriptorPool, compiled: &Compiled) {
        let Selection { include, exclude } = &source.selection;
        let mut report = |option: &str, entry: &str, problem: String| {
            self.diagnostics.push(Diagnostic {
                file: source.name.clone(),
                element: entry.to_owned(),
                option: option.to_owned(),
                problem,
            });
        };
        let entries = include.iter().map(|entry| ("include", entry));
        for (option, entry) in entries.chain(exclude.iter().map(|entry| ("exclude", entry))) {
            let covered: Vec<MethodDescriptor> = pool
                .services()
                .flat_map(|service| service.methods().collect::<Vec<_>>())
                .filter(|rpc| selection::covers(entry, rpc.full_name()))
                .collect();
            if covered.is_empty() {
                let problem = "is not a package, a service or an rpc of the descriptor set";
                report(option, entry, problem.to_owned());
                continue;
            }
            if option == "exclude" {
                continue;
            }
            if covered
                .iter()
                .all(|rpc| selection::is_own(rpc.parent_service()))
            {
                report(option, entry, "is implemented by the gateway itself".into());
                continue;
            }
            let mut left_out = Vec::new();
            for rpc in &covered {
                left_out.extend(compiled.left_out.get(&path_of(rpc)));
            }
            let Some(first) = left_out.first().filter(|_| left_out.len() == covered.len()) else {
                continue;
            };
            // An rpc that is named itself is reported at its place in the proto.
            let is_named = selection::same(entry, covered[0].full_name());
            if !is_named || first.reason == LeftOutReason::NotSelected {
                let LeftOut {
                    service,
                    name,
                    reason,
                    ..
                } = first;
                let problem =
                    format!("selects no rpc that can be served: {service}.{name}: {reason}");
                report(option, entry, problem);
            }
        }
    }
}

/// Returns the gRPC path of an rpc.
fn path_of(rpc: &MethodDescriptor) -> Box<str> {
    format!("/{}/{}", rpc.parent_service().full_name(), rpc.name()).into()
}

/// The rpcs of one descriptor set.
#[derive(Default)]
struct Compiled {
    methods: HashMap<Box<str>, Arc<Method>>,
    /// Methods that name other rpcs, to be linked when all are compiled.
    unlinked: Vec<Unlinked>,
    left_out: BTreeMap<Box<str>, LeftOut>,
}

struct Service<'a> {
    service: &'a ServiceDescriptor,
    schema: &'a Arc<Schema>,
    options: &'a Options,
    diagnostics: &'a mut Vec<Diagnostic>,
    families: &'a Families,
    selection: &'a Selection,
    definitions: &'a mut HashMap<Box<str>, (Definition, String)>,
    source: &'a Source,
    compiled: &'a mut Compiled,
}

/// The options of an rpc.
struct Annotations {
    http: Option<HttpRule>,
    rules: MethodRules,
}

impl Service<'_> {
    fn compile(mut self) {
        let mut served = Vec::new();
        for rpc in self.service.methods() {
            match self.annotations(&rpc) {
                Ok(annotations) => served.push((rpc, annotations)),
                Err(reason) => {
                    if self.selection.names(rpc.full_name()) && reason != LeftOutReason::NotSelected
                    {
                        let problem = format!("`include` selects the rpc, but {reason}");
                        self.diagnostics(&rpc).report(HTTP, problem);
                    }
                    let left_out = LeftOut::new(&rpc, reason);
                    self.compiled.left_out.insert(path_of(&rpc), left_out);
                }
            }
        }
        if served.is_empty() {
            return;
        }
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
        for (rpc, annotations) in served {
            if !self.define(&rpc, &annotations) {
                continue;
            }
            match self.rpc(&rpc, annotations, family) {
                Some((method, rules)) if Unlinked::is(&rules) => {
                    self.compiled.unlinked.push(Unlinked { rpc, method, rules });
                }
                Some((method, _)) => {
                    let method = Arc::new(method);
                    self.compiled.methods.insert(method.path.clone(), method);
                }
                None => {}
            }
        }
    }

    /// Reads the options of an rpc, or returns why it is not served.
    fn annotations(&mut self, rpc: &MethodDescriptor) -> Result<Annotations, LeftOutReason> {
        if !self.selection.selects(rpc.full_name()) {
            return Err(LeftOutReason::NotSelected);
        }
        let options = rpc.options();
        let http = self.options.read(&options, HTTP);
        let rules = self.options.read(&options, "drawbridge.v1.method");
        let before = self.diagnostics.len();
        let mut diagnostics = self.diagnostics(rpc);
        let http: Option<HttpRule> = diagnostics.value_or_report(HTTP, http);
        let rules: MethodRules = diagnostics
            .value_or_report("(drawbridge.v1.method)", rules)
            .unwrap_or_default();
        let is_readable = diagnostics.all.len() == before;
        match left_out::by_annotations(rpc, http.as_ref(), &rules) {
            Some(reason) if is_readable => Err(reason),
            _ => Ok(Annotations { http, rules }),
        }
    }

    /// Records the definition of an rpc. Fails, and reports it, where another descriptor set
    /// defines the rpc differently.
    fn define(&mut self, rpc: &MethodDescriptor, annotations: &Annotations) -> bool {
        let definition = Definition {
            types: [rpc.input(), rpc.output()].map(|message| message.full_name().into()),
            streams: [rpc.is_client_streaming(), rpc.is_server_streaming()],
            http: annotations.http.clone(),
            rules: annotations.rules.clone(),
        };
        let path = path_of(rpc);
        let name = self.source.name.clone();
        let Some((known, origin)) = self.definitions.get(&path) else {
            self.definitions.insert(path, (definition, name));
            return true;
        };
        let same = *known == definition;
        if !same {
            // One diagnostic for all rpcs of the service.
            let mut diagnostics = Diagnostics {
                file: self.service.parent_file().name().to_owned(),
                element: self.service.full_name().to_owned(),
                all: &mut *self.diagnostics,
            };
            let problem = format!(
                "is in two descriptor sets, {origin} and {name}, with different annotations: \
                 remove one, or leave it out with `exclude`"
            );
            diagnostics.report("service", problem);
        }
        same
    }

    fn diagnostics(&mut self, rpc: &MethodDescriptor) -> Diagnostics<'_> {
        Diagnostics::of_rpc(rpc, self.diagnostics)
    }

    /// Compiles one rpc except for the options that name other rpcs.
    fn rpc(
        &mut self,
        rpc: &MethodDescriptor,
        annotations: Annotations,
        family: &str,
    ) -> Option<(Method, MethodRules)> {
        let Annotations { http, rules } = annotations;
        let family_rules = (self.families)(family);
        let schema = self.schema;
        let mut diagnostics = self.diagnostics(rpc);
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
                declares_idempotency: declares_idempotency(rpc),
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
            raw_response: match rpc.is_server_streaming() {
                true => None,
                false => RawResponse::of(schema, output, response_body),
            },
            response_body,
            called: None,
            watched_member: OnceLock::new(),
            document_read: OnceLock::new(),
        };
        let mut diagnostics = self.diagnostics(rpc);
        method.binding.additional =
            additional_bindings(rpc, &http, &rules, &method, &mut diagnostics);
        media_type::check(&rules, &method.binding, &mut diagnostics);
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

/// Returns whether the rpc has an `idempotency_level`.
fn declares_idempotency(rpc: &MethodDescriptor) -> bool {
    let options = rpc.method_descriptor_proto().options.as_ref();
    options.is_some_and(|options| options.idempotency_level.is_some())
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
