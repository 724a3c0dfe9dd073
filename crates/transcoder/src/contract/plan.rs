//! The binding plan of one rpc and dialect: which fields are required, which are sent,
//! and which of them in the query.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::expression;
use super::path_template::encode;
use crate::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// The tables for one dialect.
#[derive(Debug)]
pub(super) struct Plan {
    /// What to check in each message; the first node is the request itself.
    pub nodes: Vec<Node>,
    /// The query parameters, in the order of the proto file.
    pub query: Vec<Param>,
    /// Whether a field of the request is left out of the body, by index.
    pub skip: Box<[bool]>,
}

/// What to check in one message. Fields without rules are left out.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub rules: Vec<Rule>,
}

/// What to check of one field.
#[derive(Debug)]
pub(super) struct Rule {
    pub index: FieldIndex,
    pub number: u32,
    pub required: bool,
    /// Below the outermost level: the field is not sent, even when it is set.
    pub unsent: bool,
    /// The smallest value of an integer field.
    pub minimum: Option<i64>,
    /// The node of the field's message, if it has rules.
    pub below: Option<usize>,
}

/// One query parameter.
#[derive(Debug)]
pub(super) struct Param {
    pub index: FieldIndex,
    /// The name, percent-encoded: `filter.name`.
    pub name: Box<str>,
    /// The path of the field in the proto, for errors.
    pub path: Box<str>,
    pub what: What,
}

/// How a field is written in the query.
#[derive(Debug)]
pub(super) enum What {
    /// `name=value`.
    Value,
    /// `name=value` for each element.
    Each,
    /// `name=value,value`, the comma encoded.
    CommaList,
    /// `name`.
    Flag,
    /// The fields of the message, each as a parameter.
    Message(MessageId, Vec<Param>),
    /// `name=expression`.
    Expression(MessageId),
}

/// The parts of an rpc's REST call that decide where fields are sent.
pub(super) struct Layout<'a> {
    pub schema: &'a Schema,
    pub input: MessageId,
    /// Fields of the path, each as the indices that lead to it.
    pub path: &'a [Vec<FieldIndex>],
    pub body: BodyFields,
    /// Marks of fields in messages of the body.
    pub marks: &'a [(Vec<FieldIndex>, Mark)],
    /// Fields that are written to an action's document only.
    pub edited: &'a [FieldIndex],
}

/// Overrides the rules of one field for one rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The field is part of the path.
    InPath,
    /// The field is required.
    Required,
    /// The field is not sent.
    Omitted,
}

/// Which fields the body contains.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFields {
    /// No fields.
    None,
    /// All fields outside path and query.
    Rest,
    /// This field.
    One(FieldIndex),
}

/// The indices that lead to a field, and its mark.
type Marked<'a> = (&'a [FieldIndex], Mark);

/// The path of a field and why it cannot be a query parameter.
pub(super) type Fault = (String, String);

impl Plan {
    /// Builds the plan. The faults are those of query parameters.
    pub fn new(layout: &Layout<'_>, dialect: &str) -> (Self, Vec<Fault>) {
        let schema = layout.schema;
        let request = schema.message(layout.input);
        let in_path = |index| layout.path.iter().any(|path| *path == [index]);
        let omitted = |field: &Field| is_omitted(request, field, dialect);

        let mut faults = Vec::new();
        let mut query = Vec::new();
        let mut flatten = Flatten {
            layout,
            dialect,
            above: vec![layout.input],
            faults: &mut faults,
        };
        for (index, field) in (0..).zip(&request.fields) {
            let in_query = match layout.body {
                BodyFields::None => true,
                BodyFields::Rest => field.query,
                BodyFields::One(body) => index != body,
            };
            let edited = layout.edited.contains(&index);
            if in_query && !in_path(index) && !edited && !omitted(field) {
                query.extend(flatten.param(&mut vec![index], field, "", ""));
            }
        }

        let elsewhere = |index: FieldIndex, field: &Field| {
            in_path(index) || omitted(field) || layout.body == BodyFields::Rest && field.query
        };
        let skip = (0..)
            .zip(&request.fields)
            .map(|(index, field)| {
                let other = match layout.body {
                    BodyFields::None => true,
                    BodyFields::Rest => false,
                    BodyFields::One(body) => index != body,
                };
                // The raw field of a field outside the body is not in the body either.
                let is_raw = field
                    .raw_of
                    .is_some_and(|of| elsewhere(of, &request.fields[usize::from(of)]));
                other || is_raw || elsewhere(index, field)
            })
            .collect();

        let mut nodes = Nodes {
            schema,
            dialect,
            ruled: ruled(schema, layout.input, dialect),
            nodes: Vec::new(),
            known: HashMap::new(),
        };
        let in_path = layout.path.iter().map(|steps| (&**steps, Mark::InPath));
        let by_rpc = layout.marks.iter().map(|(steps, mark)| (&**steps, *mark));
        let nested: Vec<Marked<'_>> = in_path
            .chain(by_rpc)
            .filter(|(steps, _)| steps.len() > 1)
            .collect();
        nodes.make(layout.input, &nested, true);
        let nodes = nodes.nodes;
        (Self { nodes, query, skip }, faults)
    }
}

/// Returns the dialects by which fields of the message, or of messages in it, differ.
pub(super) fn dialects(schema: &Schema, message: MessageId) -> BTreeSet<&str> {
    reachable(schema, message)
        .into_iter()
        .flat_map(|id| &schema.message(id).fields)
        .flat_map(|field| field.required_in.iter().chain(&field.absent_in))
        .map(|name| &**name)
        .collect()
}

/// Returns whether the field is never sent to this dialect.
fn is_omitted(message: &Message, field: &Field, dialect: &str) -> bool {
    field.gateway_only
        || is_output(message, field)
        || !field.is_in(dialect)
        || field
            .raw_of
            .is_some_and(|of| is_omitted(message, &message.fields[usize::from(of)], dialect))
}

/// Returns whether the field, or the field that it is the raw field of, is OUTPUT_ONLY.
fn is_output(message: &Message, field: &Field) -> bool {
    let of = field.raw_of.map(|of| &message.fields[usize::from(of)]);
    field.output_only || of.is_some_and(|of| of.output_only)
}

fn is_required(field: &Field, dialect: &str) -> bool {
    let may_be_empty =
        matches!(field.cardinality, Cardinality::Repeated | Cardinality::Map) && field.emit_empty;
    (field.required || names(&field.required_in, dialect)) && !field.project_id && !may_be_empty
}

fn names(list: &[Box<str>], name: &str) -> bool {
    list.iter().any(|known| **known == *name)
}

fn reachable(schema: &Schema, message: MessageId) -> Vec<MessageId> {
    let mut found = vec![message];
    let mut seen = HashSet::from([message]);
    let mut at = 0;
    while let Some(id) = found.get(at) {
        for field in &schema.message(*id).fields {
            if let Kind::Message(below) = field.kind
                && seen.insert(below)
            {
                found.push(below);
            }
        }
        at += 1;
    }
    found
}

/// Returns the messages within `message` that have rules, or contain a message that
/// has.
fn ruled(schema: &Schema, message: MessageId, dialect: &str) -> HashSet<MessageId> {
    let all = reachable(schema, message);
    let mut ruled: HashSet<MessageId> = HashSet::new();
    loop {
        let before = ruled.len();
        for id in &all {
            let message = schema.message(*id);
            let has_rule = message.fields.iter().any(|field| {
                is_required(field, dialect)
                    || field.minimum.is_some()
                    || is_omitted(message, field, dialect)
                    || matches!(field.kind, Kind::Message(below) if ruled.contains(&below))
            });
            if has_rule {
                ruled.insert(*id);
            }
        }
        if ruled.len() == before {
            return ruled;
        }
    }
}

struct Nodes<'a> {
    schema: &'a Schema,
    dialect: &'a str,
    ruled: HashSet<MessageId>,
    nodes: Vec<Node>,
    /// Nodes of messages without marks.
    known: HashMap<MessageId, usize>,
}

impl Nodes<'_> {
    /// Builds the node of a message, with the marks of its fields and of those below. A
    /// recursive message refers to the node that exists already.
    fn make(&mut self, id: MessageId, marked: &[Marked<'_>], is_request: bool) -> usize {
        let plain = marked.is_empty() && !is_request;
        if let Some(known) = self.known.get(&id).filter(|_| plain) {
            return *known;
        }
        let at = self.nodes.len();
        self.nodes.push(Node::default());
        if plain {
            self.known.insert(id, at);
        }
        let schema = self.schema;
        let message = schema.message(id);
        let mut rules = Vec::new();
        for (index, field) in (0..).zip(&message.fields) {
            let (here, deeper): (Vec<_>, Vec<_>) = marked
                .iter()
                .filter(|(steps, _)| steps[0] == index)
                .map(|(steps, mark)| (&steps[1..], *mark))
                .partition(|(steps, _)| steps.is_empty());
            let is = |mark| here.iter().any(|(_, found)| *found == mark);
            let taken_out = is(Mark::InPath) || is(Mark::Omitted);
            let omitted = is_omitted(message, field, self.dialect) || taken_out;
            let below = match field.kind {
                Kind::Message(below)
                    if !omitted && (!deeper.is_empty() || self.ruled.contains(&below)) =>
                {
                    Some(self.make(below, &deeper, false))
                }
                _ => None,
            };
            let required = (is_required(field, self.dialect) || is(Mark::Required))
                && (!omitted || field.gateway_only);
            // `Plan::skip` leaves out fields of the request itself. The encoder leaves
            // out fields that are `gateway_only` or absent in the dialect.
            let unsent = !is_request && (is_output(message, field) || taken_out);
            let minimum = field
                .minimum
                .filter(|_| !is_output(message, field) && !is(Mark::Omitted));
            if required || unsent || minimum.is_some() || below.is_some() {
                rules.push(Rule {
                    index,
                    number: field.number,
                    required,
                    unsent,
                    minimum,
                    below,
                });
            }
        }
        self.nodes[at].rules = rules;
        at
    }
}

/// Builds query parameters from fields, and from the fields of messages.
struct Flatten<'a> {
    layout: &'a Layout<'a>,
    dialect: &'a str,
    /// The messages that contain the field, from the request on.
    above: Vec<MessageId>,
    faults: &'a mut Vec<Fault>,
}

impl Flatten<'_> {
    /// Builds the parameter of a field: `steps` lead to it, `path` and `name` are those
    /// of the message that contains it.
    fn param(
        &mut self,
        steps: &mut Vec<FieldIndex>,
        field: &Field,
        path: &str,
        name: &str,
    ) -> Option<Param> {
        // It is sent with the field that it is the raw field of.
        if field.raw_of.is_some() {
            return None;
        }
        let path = format!("{path}{}", field.name);
        let name = format!("{name}{}", field.wire_name);
        let what = match self.what(steps, field, &path, &name) {
            Ok(what) => what,
            Err(problem) => {
                self.faults.push((path, problem));
                return None;
            }
        };
        let mut encoded = String::new();
        encode(&name, &mut encoded);
        Some(Param {
            index: *steps.last()?,
            // A query can contain a colon, and names such as `HQL::filter` are
            // documented with theirs. Source: RFC 3986, section 3.4.
            name: encoded.replace("%3A", ":").into(),
            path: path.into(),
            what,
        })
    }

    fn what(
        &mut self,
        steps: &mut Vec<FieldIndex>,
        field: &Field,
        path: &str,
        name: &str,
    ) -> Result<What, String> {
        const ELSEWHERE: &str = "put it in a body, or mark it `gateway_only`";
        let schema = self.layout.schema;
        if field.cardinality == Cardinality::Map {
            return Err(format!("a map cannot be a query parameter; {ELSEWHERE}"));
        }
        let message = match field.kind {
            Kind::Message(id) if field.form != Form::JsonText => Some(id),
            _ => None,
        };
        let shape = message.map(|id| schema.message(id).shape);
        if let (Form::Expression, Some(id)) = (field.form, message) {
            expression::check(schema, id)?;
            return Ok(What::Expression(id));
        }
        match (shape, field.cardinality) {
            (Some(Shape::Struct | Shape::Value | Shape::ListValue | Shape::Any), _) => {
                return Err(format!(
                    "arbitrary JSON cannot be a query parameter; {ELSEWHERE}, or give it the \
                     form FORM_JSON_TEXT"
                ));
            }
            (Some(Shape::Object), Cardinality::Repeated) => {
                return Err(format!(
                    "a list of messages cannot be a query parameter; {ELSEWHERE}"
                ));
            }
            (Some(Shape::Object), _) if message.is_some_and(|id| schema.message(id).as_array) => {
                return Err(format!(
                    "a message that is an array in JSON cannot be a query parameter; {ELSEWHERE}"
                ));
            }
            (Some(Shape::Object), _) => {}
            (_, Cardinality::Repeated) if field.form == Form::CommaList => {
                return Ok(What::CommaList);
            }
            (_, Cardinality::Repeated) => return Ok(What::Each),
            _ if field.form == Form::Flag => return Ok(What::Flag),
            _ => return Ok(What::Value),
        }
        let Some(id) = message else {
            return Ok(What::Value);
        };
        if self.above.contains(&id) {
            return Err(format!(
                "a recursive message cannot be a query parameter; {ELSEWHERE}"
            ));
        }
        self.above.push(id);
        let mut params = Vec::new();
        let message = schema.message(id);
        let (path, name) = (format!("{path}."), format!("{name}."));
        for (index, field) in (0..).zip(&message.fields) {
            steps.push(index);
            let in_path = self.layout.path.contains(steps);
            if !in_path && !is_omitted(message, field, self.dialect) {
                params.extend(self.param(steps, field, &path, &name));
            }
            steps.pop();
        }
        self.above.pop();
        Ok(What::Message(id, params))
    }
}
