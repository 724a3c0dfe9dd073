//! What a request's fields are for, worked out once per rpc and dialect: which
//! are required, which are sent, and which of them in the query.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::expression;
use super::path_template::encode;
use crate::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// The tables for one dialect.
#[derive(Debug)]
pub(super) struct Plan {
    /// What to check of a message; the first one is the request itself.
    pub nodes: Vec<Node>,
    /// The query parameters, in the order of the proto file.
    pub query: Vec<Param>,
    /// Fields of the request that are not in the body, by index.
    pub skip: Box<[bool]>,
}

/// What to check of one message: only fields about which there is something.
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
    /// Below the outermost level: set or not, it is not sent.
    pub surplus: bool,
    /// The node of the field's message, where that has rules.
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

/// How a field stands in the query.
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
    /// Its fields, each by itself.
    Message(MessageId, Vec<Param>),
    /// `name=expression`.
    Expression(MessageId),
}

/// What an rpc's annotation says of its request's fields.
pub(super) struct Layout<'a> {
    pub schema: &'a Schema,
    pub input: MessageId,
    /// The fields in the path, each as the indices that lead to it.
    pub path: &'a [Vec<FieldIndex>],
    pub body: Share,
    /// What the rpc says of fields in messages of the body.
    pub marks: &'a [(Vec<FieldIndex>, Mark)],
    /// Fields that are put into an action's document, and stand nowhere else.
    pub edited: &'a [FieldIndex],
}

/// What an rpc says of one field, wherever its message says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It stands in the path.
    InPath,
    /// It is required.
    Required,
    /// It is not sent.
    Unsent,
}

/// Which fields the body takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// None of them.
    None,
    /// All that stand nowhere else.
    Rest,
    /// This one.
    One(FieldIndex),
}

/// The indices that lead to a field, and what is said of it.
type Marked<'a> = (&'a [FieldIndex], Mark);

/// A field that cannot be what the annotation makes it: its path, and why.
pub(super) type Fault = (String, String);

impl Plan {
    /// Works out the tables. The faults are those of query parameters.
    pub fn new(layout: &Layout<'_>, dialect: &str) -> (Self, Vec<Fault>) {
        let schema = layout.schema;
        let request = schema.message(layout.input);
        let in_path = |index| layout.path.iter().any(|path| *path == [index]);
        let omitted = |field: &Field| is_unsent(request, field, dialect);

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
                Share::None => true,
                Share::Rest => field.query,
                Share::One(body) => index != body,
            };
            let edited = layout.edited.contains(&index);
            if in_query && !in_path(index) && !edited && !omitted(field) {
                query.extend(flatten.param(&mut vec![index], field, "", ""));
            }
        }

        let elsewhere = |index: FieldIndex, field: &Field| {
            in_path(index) || omitted(field) || layout.body == Share::Rest && field.query
        };
        let skip = (0..)
            .zip(&request.fields)
            .map(|(index, field)| {
                let other = match layout.body {
                    Share::None => true,
                    Share::Rest => false,
                    Share::One(body) => index != body,
                };
                // The text of a field that is not in the body has no place there either.
                let told = field
                    .raw_of
                    .is_some_and(|of| elsewhere(of, &request.fields[usize::from(of)]));
                other || told || elsewhere(index, field)
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

/// Dialects that some field of the message, or of a message in it, tells apart.
pub(super) fn dialects(schema: &Schema, message: MessageId) -> BTreeSet<&str> {
    reachable(schema, message)
        .into_iter()
        .flat_map(|id| &schema.message(id).fields)
        .flat_map(|field| field.required_in.iter().chain(&field.absent_in))
        .map(|name| &**name)
        .collect()
}

/// Whether the field is never sent to this dialect.
fn is_unsent(message: &Message, field: &Field, dialect: &str) -> bool {
    field.gateway_only
        || is_output(message, field)
        || !field.is_in(dialect)
        || field
            .raw_of
            .is_some_and(|of| is_unsent(message, &message.fields[usize::from(of)], dialect))
}

/// Whether the field, or the one whose text it keeps, is OUTPUT_ONLY.
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

/// The messages within `message` in which, or below which, something is to be
/// checked.
fn ruled(schema: &Schema, message: MessageId, dialect: &str) -> HashSet<MessageId> {
    let all = reachable(schema, message);
    let mut ruled: HashSet<MessageId> = HashSet::new();
    loop {
        let before = ruled.len();
        for id in &all {
            let message = schema.message(*id);
            let has_rule = message.fields.iter().any(|field| {
                is_required(field, dialect)
                    || is_unsent(message, field, dialect)
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
    /// Nodes of messages whatever their place.
    known: HashMap<MessageId, usize>,
}

impl Nodes<'_> {
    /// Makes the node of a message, with what is said of the fields that `marked`
    /// leads to from here. Messages within themselves end at the node that is there
    /// already.
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
            let taken_out = is(Mark::InPath) || is(Mark::Unsent);
            let omitted = is_unsent(message, field, self.dialect) || taken_out;
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
            // What the request itself does not send is left out by `Plan::skip`, and
            // what is local or absent in the dialect by the transcoder.
            let surplus = !is_request && (is_output(message, field) || taken_out);
            if required || surplus || below.is_some() {
                rules.push(Rule {
                    index,
                    number: field.number,
                    required,
                    surplus,
                    below,
                });
            }
        }
        self.nodes[at].rules = rules;
        at
    }
}

/// Makes query parameters of fields, and of the fields of messages.
struct Flatten<'a> {
    layout: &'a Layout<'a>,
    dialect: &'a str,
    /// The messages that the field stands in, from the request on.
    above: Vec<MessageId>,
    faults: &'a mut Vec<Fault>,
}

impl Flatten<'_> {
    /// The parameter of a field: `steps` lead to it, `path` and `name` are those of
    /// the message it stands in.
    fn param(
        &mut self,
        steps: &mut Vec<FieldIndex>,
        field: &Field,
        path: &str,
        name: &str,
    ) -> Option<Param> {
        // It is told by the field whose text it keeps.
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
            // A colon may stand in a query, and names such as `HQL::filter` are
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
                    "a message that stands as an array cannot be a query parameter; {ELSEWHERE}"
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
                "a message within itself cannot be a query parameter; {ELSEWHERE}"
            ));
        }
        self.above.push(id);
        let mut params = Vec::new();
        let message = schema.message(id);
        let (path, name) = (format!("{path}."), format!("{name}."));
        for (index, field) in (0..).zip(&message.fields) {
            steps.push(index);
            let in_path = self.layout.path.contains(steps);
            if !in_path && !is_unsent(message, field, self.dialect) {
                params.extend(self.param(steps, field, &path, &name));
            }
            steps.pop();
        }
        self.above.pop();
        Ok(What::Message(id, params))
    }
}
