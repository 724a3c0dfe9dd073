//! From descriptors to methods. Every contradiction is a refusal; all are
//! collected, so that one start tells them all.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method as Verb;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, ServiceDescriptor, Value};

use super::bind::{Binding, Body, PathField, Piece};
use super::link::{self, Unlinked};
use super::plan::{Layout, Mark, Plan, Share, dialects};
use super::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema, Shape};
use super::template::{Part, Template, Variable};
use super::{
    Action, Check, Contract, Method, Refusal, Source, edit, file, gather, paging, resolve,
};
use crate::api::drawbridge::v1::{self as rules, FileRules, MethodRules};
use crate::api::google::api::HttpRule;
use crate::api::google::api::http_rule::Pattern;
use crate::rest::Idempotency;

const HTTP: &str = "google.api.http";

/// Compiles all sources; see [`Contract::compile`].
pub(super) fn compile(sources: Vec<Source>) -> Result<Contract, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut methods: HashMap<Box<str>, Arc<Method>> = HashMap::new();
    let mut origins: HashMap<Box<str>, String> = HashMap::new();
    for source in &sources {
        let pool = match DescriptorPool::decode(&*source.bytes) {
            Ok(pool) => pool,
            Err(problem) => {
                refusals.push(Refusal {
                    file: source.name.clone(),
                    element: String::new(),
                    option: String::new(),
                    problem: format!(
                        "not a whole descriptor set ({problem}): make one with `buf build -o \
                         my.binpb`, or `protoc --include_imports --descriptor_set_out=my.binpb`"
                    ),
                });
                continue;
            }
        };
        let schema = match Schema::build(&pool) {
            Ok(schema) => Arc::new(schema),
            Err(problems) => {
                refusals.extend(problems);
                continue;
            }
        };
        let options = Options::of(&pool);
        let mut unlinked = Vec::new();
        for service in pool.services().filter(is_served) {
            let name: Box<str> = service.full_name().into();
            if let Some(origin) = origins.get(&name) {
                refusals.push(Refusal {
                    file: service.parent_file().name().to_owned(),
                    element: name.to_string(),
                    option: "service".to_owned(),
                    problem: format!(
                        "stands in two descriptor sets, {origin} and {}: leave one out",
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
                refusals: &mut refusals,
                unlinked: &mut unlinked,
            }
            .compile();
            methods.extend(compiled.into_iter().map(|m| (m.path.clone(), m)));
        }
        link::link(unlinked, &schema, &mut methods, &mut refusals);
    }
    for method in methods.values() {
        if let Some(check) = &method.check
            && let Err(problem) = check.definitions_in(&methods)
        {
            refusals.push(Refusal {
                file: String::new(),
                element: method.path[1..].replace('/', "."),
                option: "(drawbridge.v1.method).check".to_owned(),
                problem,
            });
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    Ok(Contract {
        methods,
        descriptor_sets: sources.into_iter().map(|source| source.bytes).collect(),
    })
}

/// Not the gateway's own services, and not those of gRPC itself.
fn is_served(service: &ServiceDescriptor) -> bool {
    let package = service.package_name();
    package != "drawbridge.v1" && package != "grpc" && !package.starts_with("grpc.")
}

/// The extensions of a pool; a set that does not import them uses none.
struct Options {
    pool: DescriptorPool,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Self {
        Self { pool: pool.clone() }
    }

    /// Reads an extension as its message; none when it is not there.
    fn read<T: prost::Message + Default>(
        &self,
        options: &DynamicMessage,
        name: &str,
    ) -> Result<Option<T>, String> {
        let Some(extension) = self.pool.get_extension_by_name(name) else {
            return Ok(None);
        };
        if !options.has_extension(&extension) {
            return Ok(None);
        }
        match &*options.get_extension(&extension) {
            Value::Message(message) => message
                .transcode_to()
                .map(Some)
                .map_err(|problem| format!("cannot be read: {problem}")),
            _ => Err("is not a message".into()),
        }
    }
}

/// Takes the refusals of one element.
pub(super) struct Place<'a> {
    pub file: String,
    pub element: String,
    pub refusals: &'a mut Vec<Refusal>,
}

impl Place<'_> {
    /// Refuses an option. The same refusal is kept once.
    pub fn refuse(&mut self, option: &str, problem: impl Into<String>) {
        let refusal = Refusal {
            file: self.file.clone(),
            element: self.element.clone(),
            option: option.to_owned(),
            problem: problem.into(),
        };
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    /// Refuses a rule of `(drawbridge.v1.method)`.
    pub fn refuse_rule(&mut self, rule: &str, problem: impl Into<String>) {
        self.refuse(&format!("(drawbridge.v1.method).{rule}"), problem);
    }

    fn take<T: Default>(&mut self, option: &str, read: Result<Option<T>, String>) -> Option<T> {
        read.unwrap_or_else(|problem| {
            self.refuse(option, problem);
            None
        })
    }
}

struct Service<'a> {
    service: &'a ServiceDescriptor,
    schema: &'a Arc<Schema>,
    options: &'a Options,
    refusals: &'a mut Vec<Refusal>,
    /// Compiled but for the rpcs that they name.
    unlinked: &'a mut Vec<Unlinked>,
}

/// Where refusals of an rpc go.
pub(super) fn place<'a>(rpc: &MethodDescriptor, refusals: &'a mut Vec<Refusal>) -> Place<'a> {
    Place {
        file: rpc.parent_file().name().to_owned(),
        element: rpc.full_name().to_owned(),
        refusals,
    }
}

impl Service<'_> {
    fn compile(mut self) -> Vec<Arc<Method>> {
        let file = self.service.parent_file();
        let rules = self.options.read(&file.options(), "drawbridge.v1.file");
        let mut place = Place {
            file: file.name().to_owned(),
            element: file.name().to_owned(),
            refusals: &mut *self.refusals,
        };
        let rules: FileRules = place
            .take("(drawbridge.v1.file)", rules)
            .unwrap_or_default();
        let family = if rules.family.is_empty() {
            file.package_name()
        } else {
            &rules.family
        };
        if family.is_empty() {
            place.refuse(
                "(drawbridge.v1.file).family",
                "the file has no package to be named after: name the family",
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

    fn place(&mut self, rpc: &MethodDescriptor) -> Place<'_> {
        place(rpc, self.refusals)
    }

    /// Compiles one rpc, all but what it says of others.
    fn rpc(&mut self, rpc: &MethodDescriptor, family: &str) -> Option<(Method, MethodRules)> {
        let schema = self.schema;
        let options = rpc.options();
        let http = self.options.read(&options, HTTP);
        let rules = self.options.read(&options, "drawbridge.v1.method");
        let mut place = self.place(rpc);
        let http: Option<HttpRule> = place.take(HTTP, http);
        let rules: MethodRules = place
            .take("(drawbridge.v1.method)", rules)
            .unwrap_or_default();

        if rpc.is_client_streaming() && rules.upload.is_none() {
            place.refuse(
                "stream",
                "client streaming has no REST call to become but that of an upload: say which \
                 with (drawbridge.v1.method).upload",
            );
            return None;
        }
        if !file::streams_fit(rpc, &rules, &mut place) {
            return None;
        }
        if rules.watch.is_some() && !rules.pages.is_empty() {
            place.refuse_rule("pages", "the rpc is a watch already: leave out one of them");
            return None;
        }
        match (rpc.is_server_streaming(), &rules.watch) {
            (true, None) if !rules.pages.is_empty() || rules.download.is_some() => {}
            (false, None) if !rules.pages.is_empty() => {
                place.refuse_rule(
                    "pages",
                    "a stream of pages is server-streaming: write `returns (stream ...)`",
                );
                return None;
            }
            (true, None) => {
                place.refuse_rule(
                    "watch",
                    "a server-streaming rpc must be a watch or a stream of pages, and name its rpc, \
                     or a download",
                );
                return None;
            }
            (false, Some(_)) => {
                place.refuse_rule(
                    "watch",
                    "a watch is server-streaming: write `returns (stream ...)`",
                );
                return None;
            }
            _ => {}
        }
        let Some(http) = http else {
            place.refuse(
                HTTP,
                "is missing: say which REST call the rpc is, as in `get: \"/v1/things/{id}\"`",
            );
            return None;
        };
        let input = schema.message_id(rpc.input().full_name());
        let output = schema.message_id(rpc.output().full_name());
        let (Some(input), Some(output)) = (input, output) else {
            place.refuse(HTTP, "the types of the rpc are not in the descriptor set");
            return None;
        };
        let idempotency = idempotency(rpc);

        let mut route = Route {
            schema,
            input,
            rules: &rules,
            place: &mut place,
        };
        let (verb, text) = route.verb_and_template(&http)?;
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(problem) => {
                route
                    .place
                    .refuse(HTTP, format!("path `{text}`: {problem}"));
                return None;
            }
        };
        let action = route.action(&template);
        let path = route.path(template);
        let other_paths = route.other_paths();
        let body = route.body(&http, action.as_ref());
        let counts = route.counts(&body);
        let at_least_one = route.groups();
        let check = rules.check.as_ref().and_then(|rule| {
            Check::compile(rule, schema, input, family, action.as_ref(), &mut place)
        });
        let reply_choices = reply_choices(schema, output, &rules, &mut place);
        let response_body = if rpc.is_server_streaming() {
            // It is the reply of the rpc that it calls that is read.
            None
        } else {
            field_named(
                schema,
                output,
                &http.response_body,
                &mut place,
                "response_body",
            )
        };
        let mut also_success = statuses(&rules, &mut place);
        let location = if rules.location.is_empty() {
            None
        } else {
            also_success.extend([301, 302, 303, 307, 308]);
            resolve::location(&rules.location, schema, output, &mut place)
        };
        let paging = match &rules.paging {
            Some(_) if rpc.is_server_streaming() => {
                place.refuse_rule("paging", "is for a unary rpc; a stream names it in `pages`");
                None
            }
            Some(rule) => paging::paging(rule, schema, (input, output), &mut place),
            None => None,
        };
        let upload = file::upload(&rules, &http, &verb, (schema, input), &mut place);
        let download = file::download(&rules, &http, (schema, output), &mut place);
        if let Err(problem) = check_query(&rules.constant_query) {
            place.refuse_rule("constant_query", problem);
        }
        let edited: Vec<FieldIndex> = action
            .iter()
            .flat_map(|action| &action.edits)
            .map(|edit| edit.field)
            .collect();
        let marks = marks(schema, input, &path, &body, &rules, &mut place);
        let constant_members = constants(schema, input, &body, &marks, &rules, &mut place);
        let plans = plans(schema, input, &path, &body, (&marks, &edited), &mut place);
        let mut method = Method {
            path: format!("/{}/{}", self.service.full_name(), rpc.name()).into(),
            service: self.service.full_name().into(),
            name: rpc.name().into(),
            family: family.into(),
            verb: verb.clone(),
            template: text.into(),
            idempotency,
            absent_in: rules.absent_in.iter().map(|d| d.as_str().into()).collect(),
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
            reply_choices,
            gather: None,
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
            },
            response_body,
        };
        if let Some(rule) = &rules.gather {
            let mut place = self.place(rpc);
            if rpc.is_server_streaming() {
                place.refuse_rule("gather", "is for a unary rpc: a watch of it gathers, too");
            }
            if rules.paging.is_some() {
                place.refuse_rule(
                    "gather",
                    "does not go together with `paging`: leave out one of them",
                );
            }
            method.gather = gather::compile(rule, &method, &mut place);
        }
        Some((method, rules))
    }
}

/// From protobuf's own option; what is not said may not be sent twice.
fn idempotency(rpc: &MethodDescriptor) -> Idempotency {
    use prost_types::method_options::IdempotencyLevel;
    let options = rpc.method_descriptor_proto().options.as_ref();
    match options.map(|options| options.idempotency_level()) {
        Some(IdempotencyLevel::NoSideEffects) => Idempotency::Safe,
        Some(IdempotencyLevel::Idempotent) => Idempotency::Idempotent,
        Some(IdempotencyLevel::IdempotencyUnknown) | None => Idempotency::Unsafe,
    }
}

/// Reads what an rpc says of its REST call.
struct Route<'a, 'p> {
    schema: &'a Schema,
    input: MessageId,
    rules: &'a MethodRules,
    place: &'a mut Place<'p>,
}

impl Route<'_, '_> {
    fn verb_and_template(&mut self, http: &HttpRule) -> Option<(Verb, String)> {
        let (verb, path) = match &http.pattern {
            Some(Pattern::Get(path)) => (Verb::GET, path),
            Some(Pattern::Put(path)) => (Verb::PUT, path),
            Some(Pattern::Post(path)) => (Verb::POST, path),
            Some(Pattern::Delete(path)) => (Verb::DELETE, path),
            Some(Pattern::Patch(path)) => (Verb::PATCH, path),
            Some(Pattern::Custom(custom)) => match Verb::from_bytes(custom.kind.as_bytes()) {
                Ok(verb) if custom.kind != "*" => (verb, &custom.path),
                _ => {
                    let problem = format!(
                        "`{}` is not an HTTP method: name one, as in `custom {{ kind: \"HEAD\" }}`",
                        custom.kind
                    );
                    self.place.refuse(HTTP, problem);
                    return None;
                }
            },
            None => {
                self.place.refuse(
                    HTTP,
                    "has no path: give one with get, put, post, delete, patch or custom",
                );
                return None;
            }
        };
        Some((verb, path.clone()))
    }

    fn path(&mut self, template: Template) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for part in template.parts {
            match part {
                Part::Literal(text) => pieces.push(Piece::Literal(text)),
                Part::Variable(variable) => match self.path_field(variable) {
                    Ok(field) => pieces.push(Piece::Field(field)),
                    Err(problem) => self.place.refuse(HTTP, problem),
                },
            }
        }
        let fields = &self.schema.message(self.input).fields;
        for (index, field) in (0..).zip(fields) {
            let stands = pieces.iter().any(|piece| match piece {
                Piece::Field(place) => place.steps.is_empty() && place.index == index,
                Piece::Literal(_) => false,
            });
            if field.project_id && !stands {
                let problem = format!(
                    "the field `{}` takes the upstream's value and must stand in the path: write \
                     `{{{}}}` where it belongs",
                    field.name, field.name
                );
                self.place.refuse(HTTP, problem);
            }
        }
        pieces
    }

    /// Paths of dialects that have their own.
    fn other_paths(&mut self) -> Vec<(Box<str>, Vec<Piece>)> {
        let rules = self.rules;
        let mut paths: Vec<(Box<str>, Vec<Piece>)> = Vec::new();
        for (dialect, text) in &rules.path_in {
            if rules.absent_in.contains(dialect) {
                let problem = format!("`{dialect}` lacks the operation: leave one of them out");
                self.place.refuse_rule("path_in", problem);
            }
            match Template::parse(text) {
                Ok(template) => paths.push((dialect.as_str().into(), self.path(template))),
                Err(problem) => {
                    let problem = format!("path `{text}`: {problem}");
                    self.place.refuse_rule("path_in", problem);
                }
            }
        }
        paths.sort_by(|(a, _), (b, _)| a.cmp(b));
        paths
    }

    /// The groups of fields of which one must be set.
    fn groups(&mut self) -> Vec<Vec<FieldIndex>> {
        let rules = self.rules;
        let request = self.schema.message(self.input);
        let mut groups = Vec::new();
        for group in &rules.at_least_one {
            let mut fields = Vec::new();
            for name in &group.fields {
                match request.field(name) {
                    Some((index, _)) => fields.push(index),
                    None => {
                        let problem = format!("{} has no field `{name}`", request.name);
                        self.place.refuse_rule("at_least_one", problem);
                    }
                }
            }
            if group.fields.len() < 2 {
                self.place.refuse_rule(
                    "at_least_one",
                    "names fewer than two fields: make a single one REQUIRED",
                );
            }
            groups.push(fields);
        }
        groups
    }

    /// Members of the body that hold how many elements a field has.
    fn counts(&mut self, body: &Body) -> Vec<(Box<str>, FieldIndex)> {
        let rules = self.rules;
        let request = self.schema.message(self.input);
        let mut counts = Vec::new();
        for (name, of) in &rules.count_members {
            let taken = request.fields.iter().any(|f| *f.wire_name == **name);
            let problem = match request.field(of) {
                _ if !matches!(body, Body::Whole) => "is for the body `*`".to_owned(),
                _ if name.is_empty() || taken => "must have a name that no field has".to_owned(),
                Some((index, field)) if field.cardinality == Cardinality::Repeated => {
                    let name = serde_json::Value::from(name.as_str());
                    counts.push((format!("{name}:").into(), index));
                    continue;
                }
                _ => format!("`{of}` is no repeated field here"),
            };
            let problem = format!("`{name}`: {problem}");
            self.place.refuse_rule("count_members", problem);
        }
        counts.sort();
        counts
    }

    fn path_field(&self, variable: Variable) -> Result<PathField, String> {
        let fault = |problem: String| format!("path variable `{{{}}}`: {problem}", variable.path);
        let mut id = self.input;
        let mut steps = Vec::new();
        let mut names = variable.path.split('.').peekable();
        while let Some(name) = names.next() {
            let message = self.schema.message(id);
            let Some((index, field)) = message.field(name) else {
                return Err(fault(format!("{} has no field `{name}`", message.name)));
            };
            if let Cardinality::Repeated | Cardinality::Map = field.cardinality {
                return Err(fault(format!("`{name}` is a list or map, not one value")));
            }
            if field.local || field.output_only || !field.absent_in.is_empty() {
                return Err(fault(format!(
                    "`{name}` is not always sent (local, OUTPUT_ONLY or absent_in), but the path \
                     needs it"
                )));
            }
            match (field.kind, names.peek()) {
                (Kind::Message(below), Some(_)) => {
                    steps.push(index);
                    id = below;
                }
                (Kind::Message(_), None) => {
                    return Err(fault(format!(
                        "`{name}` is a message: name a field of it, as in `{{{}.id}}`",
                        variable.path
                    )));
                }
                (_, Some(_)) => return Err(fault(format!("`{name}` is not a message"))),
                (_, None) => {
                    return Ok(PathField {
                        steps,
                        index,
                        project_id: field.project_id,
                        variable,
                    });
                }
            }
        }
        Err(fault("names no field".into()))
    }

    fn body(&mut self, http: &HttpRule, action: Option<&Action>) -> Body {
        let rules = self.rules;
        let unset = rules::UnsetBody::try_from(rules.unset_body);
        let or_empty = unset == Ok(rules::UnsetBody::EmptyObject);
        if unset.is_err() {
            self.place
                .refuse_rule("unset_body", "is not a value that is known");
        }
        if or_empty && matches!(&*http.body, "" | "*") {
            self.place.refuse_rule(
                "unset_body",
                "is for a body that is a field; `*` always sends an object",
            );
        }
        if !rules.constant_body.is_empty() {
            if !http.body.is_empty() || action.is_some() {
                self.place.refuse_rule(
                    "constant_body",
                    "there is another body already: leave out one of them",
                );
            }
            if let Err(problem) = check_json(&rules.constant_body) {
                self.place.refuse_rule("constant_body", problem);
            }
            return Body::Constant(Bytes::from(rules.constant_body.clone()));
        }
        if let Some(action) = action {
            let document = action
                .document
                .map(|index| &*self.schema.message(self.input).fields[usize::from(index)].name);
            if !http.body.is_empty() && document != Some(&*http.body) {
                self.place.refuse(
                    HTTP,
                    "the body of an action is its document: leave `body` out, or name the \
                     document's field",
                );
            }
            return match action.document {
                Some(index) => Body::Field {
                    index,
                    or_empty: false,
                },
                None => Body::None,
            };
        }
        match &*http.body {
            "" => Body::None,
            "*" => Body::Whole,
            name => match field_named(self.schema, self.input, name, self.place, "body") {
                Some(index) => {
                    let field = &self.schema.message(self.input).fields[usize::from(index)];
                    if field.local || field.query || field.output_only {
                        let problem =
                            format!("body `{name}` is a field that is not sent in a body");
                        self.place.refuse(HTTP, problem);
                    }
                    Body::Field { index, or_empty }
                }
                None => Body::None,
            },
        }
    }

    fn action(&mut self, template: &Template) -> Option<Action> {
        let rule = self.rules.action.as_ref()?;
        if template.last_literal().is_none() && !rule.same_path {
            self.place.refuse_rule(
                "action",
                "the path must end in a fixed segment, as `/invoke`: without it, it is the \
                 document's path",
            );
        }
        if rule.name_member.is_empty() && !rule.name_value.is_empty() {
            self.place
                .refuse_rule("action.name_member", "is missing: name_value is its value");
        }
        let mut members: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, json) in &rule.members {
            if let Err(problem) = check_json(json) {
                let problem = format!("`{name}`: {problem}");
                self.place.refuse_rule("action.members", problem);
            }
            members.push((name.as_str().into(), json.as_str().into()));
        }
        // The map comes in no order of its own.
        members.sort();
        let mut document = None;
        if !rule.document.is_empty() {
            let request = self.schema.message(self.input);
            match request.field(&rule.document) {
                None => {
                    let problem = format!("{} has no field `{}`", request.name, rule.document);
                    self.place.refuse_rule("action.document", problem);
                }
                Some((index, field)) => {
                    let is_object = matches!(field.kind, Kind::Message(id)
                        if matches!(self.schema.message(id).shape,
                            Shape::Object | Shape::Struct | Shape::Value));
                    if !is_object || field.cardinality != Cardinality::Explicit {
                        self.place.refuse_rule(
                            "action.document",
                            "must be one message, for example a google.protobuf.Struct",
                        );
                    }
                    document = Some(index);
                }
            }
        }
        Some(Action {
            name: (!rule.name_member.is_empty()).then(|| {
                (
                    rule.name_member.as_str().into(),
                    rule.name_value.as_str().into(),
                )
            }),
            members,
            document,
            same_path: rule.same_path,
            edits: edit::compile(&rule.edits, self.schema, self.input, self.place),
        })
    }
}

/// Which member tells which kind of reply.
fn reply_choices(
    schema: &Schema,
    output: MessageId,
    rules: &MethodRules,
    place: &mut Place<'_>,
) -> Vec<(Box<str>, FieldIndex)> {
    let message = schema.message(output);
    let mut choices: Vec<(Box<str>, FieldIndex)> = Vec::new();
    for rules::ReplyChoice {
        member,
        field: name,
    } in &rules.reply_choices
    {
        let problem = match message.field(name) {
            None => format!("{} has no field `{name}`", message.name),
            Some(_) if member.is_empty() => "a member has no name".to_owned(),
            Some(_) if choices.iter().any(|(known, _)| **known == **member) => {
                format!("`{member}` is told apart already")
            }
            Some((index, field)) => match (field.kind, field.cardinality) {
                (Kind::Message(_), Cardinality::Explicit) => {
                    choices.push((member.as_str().into(), index));
                    continue;
                }
                _ => format!("`{name}` must be one message"),
            },
        };
        place.refuse_rule("reply_choices", problem);
    }
    choices
}

/// The field of this name for `body` or `response_body`; none for no name.
fn field_named(
    schema: &Schema,
    id: MessageId,
    name: &str,
    place: &mut Place<'_>,
    what: &str,
) -> Option<FieldIndex> {
    if name.is_empty() {
        return None;
    }
    let message = schema.message(id);
    match message.field(name) {
        Some((index, _)) => Some(index),
        None => {
            let problem = format!("{what} `{name}`: {} has no such field", message.name);
            place.refuse(HTTP, problem);
            None
        }
    }
}

/// One plan for all dialects, and one for each that is told apart.
fn plans(
    schema: &Schema,
    input: MessageId,
    path: &[Piece],
    body: &Body,
    (marks, edited): (&[(Vec<FieldIndex>, Mark)], &[FieldIndex]),
    place: &mut Place<'_>,
) -> Vec<(Box<str>, Plan)> {
    let in_path: Vec<Vec<FieldIndex>> = path
        .iter()
        .filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Field(field) => {
                let mut steps = field.steps.clone();
                steps.push(field.index);
                Some(steps)
            }
        })
        .collect();
    let layout = Layout {
        schema,
        input,
        path: &in_path,
        body: match body {
            Body::None | Body::Constant(_) => Share::None,
            Body::Whole => Share::Rest,
            Body::Field { index, .. } => Share::One(*index),
        },
        marks,
        edited,
    };
    let mut plans = Vec::new();
    for dialect in std::iter::once("").chain(dialects(schema, input)) {
        let (plan, faults) = Plan::new(&layout, dialect);
        for (field, problem) in faults {
            place.refuse(HTTP, format!("query parameter `{field}`: {problem}"));
        }
        plans.push((dialect.into(), plan));
    }
    plans
}

/// What `required` and `unsent` say of fields in messages of the body.
fn marks(
    schema: &Schema,
    input: MessageId,
    path: &[Piece],
    body: &Body,
    rules: &MethodRules,
    place: &mut Place<'_>,
) -> Vec<(Vec<FieldIndex>, Mark)> {
    let of = |rule, names: &[String], mark, place: &mut Place<'_>| -> Vec<_> {
        let steps = names.iter().filter_map(|name| {
            steps(schema, input, path, body, name)
                .map_err(|problem| place.refuse_rule(rule, format!("`{name}`: {problem}")))
                .ok()
        });
        steps.map(|steps| (steps, mark)).collect()
    };
    let mut marks = of("required", &rules.required, Mark::Required, place);
    let unsent = of("unsent", &rules.unsent, Mark::Unsent, place);
    for (steps, _) in &unsent {
        if marks
            .iter()
            .any(|(required, _)| required.starts_with(steps))
        {
            place.refuse_rule("unsent", "a field that is required is to be sent");
        }
    }
    marks.extend(unsent);
    marks
}

/// The indices that lead to a field in a message of the body.
fn steps(
    schema: &Schema,
    input: MessageId,
    path: &[Piece],
    body: &Body,
    name: &str,
) -> Result<Vec<FieldIndex>, String> {
    let mut id = input;
    let mut steps = Vec::new();
    let mut names = name.split('.').peekable();
    while let Some(name) = names.next() {
        let message = schema.message(id);
        let Some((index, field)) = message.field(name) else {
            return Err(format!("{} has no field `{name}`", message.name));
        };
        steps.push(index);
        if names.peek().is_none() {
            break;
        }
        match field.kind {
            Kind::Message(below)
                if schema.message(below).shape == Shape::Object
                    && field.cardinality != Cardinality::Map =>
            {
                id = below;
            }
            _ => return Err(format!("`{name}` is no message with fields")),
        }
    }
    if steps.len() < 2 {
        return Err("is a field of the request itself: annotate it there".into());
    }
    let first = &schema.message(input).fields[usize::from(steps[0])];
    let in_body = match body {
        Body::Whole => !first.query,
        Body::Field { index, .. } => *index == steps[0],
        Body::None | Body::Constant(_) => false,
    };
    let in_path = path.iter().any(|piece| match piece {
        Piece::Field(place) => [&*place.steps, &[place.index]].concat() == steps,
        Piece::Literal(_) => false,
    });
    match in_body && !in_path && !first.local && !first.output_only {
        true => Ok(steps),
        false => Err("does not stand in the body".into()),
    }
}

/// The members that every body has, as JSON has them.
fn constants(
    schema: &Schema,
    input: MessageId,
    body: &Body,
    marks: &[(Vec<FieldIndex>, Mark)],
    rules: &MethodRules,
    place: &mut Place<'_>,
) -> Box<str> {
    const RULE: &str = "constant_members";
    if rules.constant_members.is_empty() {
        return "".into();
    }
    let (message, above) = match body {
        Body::Whole => (Some(input), None),
        Body::Field { index, .. } => {
            let field = &schema.message(input).fields[usize::from(*index)];
            match (field.kind, field.cardinality) {
                (Kind::Message(id), Cardinality::Explicit) => (Some(id), Some(*index)),
                _ => (None, None),
            }
        }
        Body::None | Body::Constant(_) => (None, None),
    };
    let message = message
        .map(|id| schema.message(id))
        .filter(|message| message.shape == Shape::Object && !message.as_array);
    let Some(message) = message else {
        place.refuse_rule(RULE, "the body must be an object of fields");
        return "".into();
    };
    let mut members: Vec<String> = Vec::new();
    for (name, json) in &rules.constant_members {
        if let Err(problem) = check_json(json) {
            place.refuse_rule(RULE, format!("`{name}`: {problem}"));
        }
        let unsent = |index| {
            let steps: Vec<FieldIndex> = above.into_iter().chain([index]).collect();
            marks.contains(&(steps, Mark::Unsent))
        };
        if message
            .names
            .get(name.as_bytes())
            .is_some_and(|index| !unsent(index))
        {
            let problem = format!(
                "`{name}` is a member that {} has a field for: leave one out, or name the field in \
                 `unsent`",
                message.name
            );
            place.refuse_rule(RULE, problem);
        }
        members.push(format!("{}:{json}", serde_json::Value::from(name.as_str())));
    }
    // The map comes in no order of its own.
    members.sort();
    members.join(",").into()
}

fn statuses(rules: &MethodRules, place: &mut Place<'_>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for status in &rules.also_success {
        match u16::try_from(*status) {
            Ok(status @ (100..=199 | 300..=599)) => statuses.push(status),
            _ => place.refuse_rule(
                "also_success",
                format!("{status} is not an HTTP status outside 200 to 299"),
            ),
        }
    }
    statuses
}

pub(super) fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|problem| format!("is not JSON: {problem}"))
}

/// What RFC 3986 lets stand in a query.
pub(super) fn check_query(text: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
    match text.chars().find(|c| !fine(*c)) {
        None if text.starts_with(['?', '&']) || text.ends_with('&') => {
            Err("stands without `?` and `&` around it".into())
        }
        None => Ok(()),
        Some(c) => Err(format!("`{c}` must be percent-encoded")),
    }
}
