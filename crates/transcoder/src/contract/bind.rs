//! Binds a request message to a REST call, by tables that are compiled at start.

mod query;
mod request_checker;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use http::Method as Verb;

use self::query::separate;
use self::request_checker::{Checker, Trail};
use super::path_template::Variable;
use super::plan::{Node, Plan};
use super::raw_body::RawBody;
use super::view::{View, descend};
use crate::Error;
use crate::call::{Call, Idempotency, MAX_URL_BYTES, Media};
use crate::json::wire::{self, Malformed, Value};
use crate::json::{self, Problem};
use crate::output_limit::finished;
use crate::schema::{Field, FieldIndex, Kind, MessageId, Schema};

/// The tables of one rpc's request.
#[derive(Debug)]
pub(super) struct Binding {
    pub verb: Verb,
    pub idempotency: Idempotency,
    /// Whether the rpc has an `idempotency_level`.
    pub declares_idempotency: bool,
    pub schema: std::sync::Arc<Schema>,
    pub input: MessageId,
    pub path: Vec<Piece>,
    /// Query parameters of every call, percent-encoded.
    pub constant_query: Box<str>,
    pub body: Body,
    /// Members of every body, as JSON: `"mode":"import"`.
    pub constant_members: Box<str>,
    /// Members of the body that contain the number of elements of a field.
    pub counts: Vec<(Box<str>, FieldIndex)>,
    /// Groups of fields of which at least one must be set.
    pub at_least_one: Vec<Vec<FieldIndex>>,
    /// Paths of dialects whose path differs.
    pub other_paths: Vec<(Box<str>, Vec<Piece>)>,
    /// Plans by dialect; the first one, without a name, is for all others.
    pub plans: Vec<(Box<str>, Plan)>,
    /// The `additional_bindings`, in the order of the rule.
    pub additional: Vec<Binding>,
}

/// One part of the path.
#[derive(Debug)]
pub(super) enum Piece {
    /// Percent-encoded text.
    Literal(Box<str>),
    /// A field's value.
    Field(PathField),
}

/// A field of the request that is part of the path.
#[derive(Debug)]
pub(super) struct PathField {
    /// Indices of the messages that contain the field.
    pub steps: Vec<FieldIndex>,
    pub index: FieldIndex,
    pub variable: Variable,
    /// Whether the upstream's project id is used when the field is empty.
    pub project_id: bool,
}

/// What is sent as the body.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// The same JSON in every call.
    Constant(Bytes),
    /// An object of all fields outside path and query.
    Fields,
    /// The value of one field, as JSON.
    Field { index: FieldIndex },
    /// The bytes of one field, unchanged.
    Raw(RawBody),
}

/// A request: its bytes, and the buffer that they are in, if a part of it can be sent
/// without a copy.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub bytes: &'a [u8],
    pub buffer: Option<&'a Bytes>,
}

impl<'a> Request<'a> {
    /// A request whose bytes are copied where they are sent.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            buffer: None,
        }
    }

    /// A request in a buffer.
    pub fn within(buffer: &'a Bytes) -> Self {
        Self {
            bytes: buffer,
            buffer: Some(buffer),
        }
    }

    /// Returns a part as a buffer of its own, without a copy where it is in the request's.
    fn share(&self, part: &[u8]) -> Bytes {
        match self.buffer {
            Some(buffer) if buffer.as_ptr_range().contains(&part.as_ptr()) => {
                buffer.slice_ref(part)
            }
            _ => Bytes::copy_from_slice(part),
        }
    }
}

impl Binding {
    /// Binds a request; see [`super::Method::bind`].
    pub fn bind(&self, request: Request<'_>, dialect: &str) -> Result<Call, Error> {
        let view = View::of(&self.schema, self.input, request.bytes).map_err(Error::malformed)?;
        self.choose(&view, request.bytes)?
            .bind_view(&view, request, dialect)
    }

    /// Returns the first binding whose path fields are all set, to values of the form
    /// that the path has; this one where none is.
    fn choose(&self, view: &View<'_>, request: &[u8]) -> Result<&Self, Error> {
        if self.additional.is_empty() || self.fits(view, request)? {
            return Ok(self);
        }
        for binding in &self.additional {
            if binding.fits(view, request)? {
                return Ok(binding);
            }
        }
        Ok(self)
    }

    /// Returns whether this binding fits every request that `other` fits.
    pub fn hides(&self, other: &Self) -> bool {
        fn fields(binding: &Binding) -> impl Iterator<Item = &PathField> {
            binding.path.iter().filter_map(|piece| match piece {
                Piece::Literal(_) => None,
                Piece::Field(field) => Some(field),
            })
        }
        fields(self).all(|own| {
            // Without a value, the upstream's project id is used.
            own.project_id && own.variable.fits_all()
                || fields(other).any(|other| {
                    (&own.steps, own.index) == (&other.steps, other.index)
                        && (own.project_id || !other.project_id)
                        && (own.variable.fits_all()
                            || own.variable.pattern == other.variable.pattern)
                })
        })
    }

    /// Returns whether the call of any of the bindings can change something.
    pub fn may_change(&self) -> bool {
        let changes = |binding: &Self| {
            binding.verb != Verb::GET && binding.idempotency != Idempotency::NoSideEffects
        };
        changes(self) || self.additional.iter().any(changes)
    }

    /// Returns whether the request has a value for each field of the path.
    fn fits(&self, view: &View<'_>, request: &[u8]) -> Result<bool, Error> {
        for piece in &self.path {
            let Piece::Field(path_field) = piece else {
                continue;
            };
            let nested;
            let below;
            let view = if path_field.steps.is_empty() {
                view
            } else {
                let found = descend(&self.schema, self.input, request, &path_field.steps);
                let Some((id, bytes)) = found.map_err(Error::malformed)? else {
                    return Ok(false);
                };
                below = bytes;
                nested = View::of(&self.schema, id, &below).map_err(Error::malformed)?;
                &nested
            };
            let value = self
                .path_value(view, path_field.index)
                .map_err(unreadable)?
                .unwrap_or_default();
            let fits = match &*value {
                "" => path_field.project_id,
                value => path_field.variable.fits(value),
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Checks a request by the rules of the binding that it chooses, without a call.
    pub fn check(&self, request: &[u8], dialect: &str) -> Result<(), Error> {
        let view = View::of(&self.schema, self.input, request).map_err(Error::malformed)?;
        let binding = self.choose(&view, request)?;
        binding.check_view(binding.plan(dialect), &view, dialect)?;
        Ok(())
    }

    /// Returns whether the request has fields that are not sent.
    fn check_view(&self, plan: &Plan, view: &View<'_>, dialect: &str) -> Result<bool, Error> {
        let mut checker = Checker {
            binding: self,
            plan,
            dialect,
            has_unsent: false,
        };
        checker.check(&plan.nodes[0], view, &Trail::ROOT)?;
        self.check_groups(view)?;
        Ok(checker.has_unsent)
    }

    fn bind_view(&self, view: &View<'_>, whole: Request<'_>, dialect: &str) -> Result<Call, Error> {
        let request = whole.bytes;
        let plan = self.plan(dialect);
        let has_unsent = self.check_view(plan, view, dialect)?;

        let other = self.other_paths.iter().find(|(name, _)| **name == *dialect);
        let pieces = other.map_or(&self.path, |(_, pieces)| pieces);
        let (path, project) = self.path(pieces, view, request)?;
        let mut query = String::new();
        self.query(&plan.query, view, &mut query)?;
        if !self.constant_query.is_empty() {
            separate(&mut query);
            query.push_str(&self.constant_query);
        }
        // Calls hold their path and query while they wait.
        if path.len() + query.len() > MAX_URL_BYTES {
            return Err(Error::Binding {
                field: "path".into(),
                problem: format!(
                    "the call's URL is longer than {MAX_URL_BYTES} bytes: a value in path or query \
                     is too long"
                ),
            });
        }
        let body = if has_unsent {
            let mut pruned = Vec::with_capacity(request.len());
            plan.prune(&plan.nodes[0], request, &mut pruned)
                .map_err(Error::malformed)?;
            self.body(plan, &pruned, dialect)?
        } else {
            self.body(plan, request, dialect)?
        };
        let mut media = Media::default();
        let body = match body {
            Some(body) if !self.counts.is_empty() => Some(self.with_counts(body, view)),
            None => match &self.body {
                Body::Raw(raw) if !raw.field.is_some_and(|at| plan.skip[usize::from(at)]) => {
                    raw.read(view, request)?.map(|raw| {
                        media.content_type = Some(raw.media_type);
                        whole.share(raw.bytes)
                    })
                }
                _ => None,
            },
            body => body,
        };
        Ok(Call {
            verb: self.verb.clone(),
            path,
            project,
            query,
            body,
            idempotency: self.idempotency,
            declares_idempotency: self.declares_idempotency,
            media,
        })
    }

    /// Returns the percent-encoded name of a field's query parameter; none when the
    /// field is not in the query.
    pub fn query_name(&self, index: FieldIndex) -> Option<&str> {
        let param = self.plans[0]
            .1
            .query
            .iter()
            .find(|param| param.index == index);
        param.map(|param| &*param.name)
    }

    /// Returns the fields of the path, each with the indices of the messages that
    /// contain it.
    pub fn path_fields(&self) -> impl Iterator<Item = (&[FieldIndex], &Field)> {
        self.path.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Field(path_field) => {
                let mut id = self.input;
                for step in &path_field.steps {
                    match self.schema.message(id).fields[usize::from(*step)].kind {
                        Kind::Message(below) => id = below,
                        _ => return None,
                    }
                }
                let field = &self.schema.message(id).fields[usize::from(path_field.index)];
                Some((&*path_field.steps, field))
            }
        })
    }

    /// Returns the value of the body field as JSON; none when it is unset.
    pub fn field_body(&self, request: &[u8]) -> Result<Option<Bytes>, Error> {
        if self.additional.is_empty() {
            return self.body(&self.plans[0].1, request, "");
        }
        let view = View::of(&self.schema, self.input, request).map_err(Error::malformed)?;
        let binding = self.choose(&view, request)?;
        binding.body(&binding.plans[0].1, request, "")
    }

    /// Returns the path of `google.api.http`, for any dialect.
    pub fn own_path(&self, request: &[u8]) -> Result<(String, Option<Range<usize>>), Error> {
        let view = View::of(&self.schema, self.input, request).map_err(Error::malformed)?;
        let binding = self.choose(&view, request)?;
        binding.path(&binding.path, &view, request)
    }

    /// Fails when no field of a group is set.
    fn check_groups(&self, view: &View<'_>) -> Result<(), Error> {
        for group in &self.at_least_one {
            if group.iter().any(|index| view.is_set(*index)) {
                continue;
            }
            let names: Vec<&str> = group.iter().map(|i| &*view.field(*i).name).collect();
            return Err(Error::Binding {
                field: names.first().copied().unwrap_or_default().to_owned(),
                problem: format!("is required, or one of: {}", names.join(", ")),
            });
        }
        Ok(())
    }

    /// Adds the `count_members` to the body, a JSON object.
    fn with_counts(&self, body: Bytes, view: &View<'_>) -> Bytes {
        let Some(object) = body.strip_suffix(b"}") else {
            return body;
        };
        let mut json = object.to_vec();
        for (name, index) in &self.counts {
            if json != b"{" {
                json.push(b',');
            }
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(view.elements(*index).count().to_string().as_bytes());
        }
        json.push(b'}');
        json.into()
    }

    fn plan(&self, dialect: &str) -> &Plan {
        let (_, plan) = self
            .plans
            .iter()
            .skip(1)
            .find(|(name, _)| **name == *dialect)
            .unwrap_or(&self.plans[0]);
        plan
    }

    fn path(
        &self,
        pieces: &[Piece],
        view: &View<'_>,
        request: &[u8],
    ) -> Result<(String, Option<Range<usize>>), Error> {
        let mut path = String::with_capacity(128);
        let mut project = None;
        for piece in pieces {
            let path_field = match piece {
                Piece::Literal(text) => {
                    path.push_str(text);
                    continue;
                }
                Piece::Field(path_field) => path_field,
            };
            let fault = |problem| Error::Binding {
                field: path_field.variable.path.to_string(),
                problem,
            };
            let nested;
            let below;
            let view = if path_field.steps.is_empty() {
                view
            } else {
                let found = descend(&self.schema, self.input, request, &path_field.steps);
                let Some((id, bytes)) = found.map_err(Error::malformed)? else {
                    return Err(fault("is part of the path and must not be empty".into()));
                };
                below = bytes;
                nested = View::of(&self.schema, id, &below).map_err(Error::malformed)?;
                &nested
            };
            let value = self
                .path_value(view, path_field.index)
                .map_err(unreadable)?;
            let value = match (value, view.field(path_field.index).kind) {
                (Some(value), _) => value,
                (None, Kind::String | Kind::Bytes) => Cow::default(),
                (None, Kind::Bool) => {
                    return Err(fault("is part of the path and must not be false".into()));
                }
                (None, _) => {
                    return Err(fault("is part of the path and must not be zero".into()));
                }
            };
            let start = path.len();
            if !(value.is_empty() && path_field.project_id) {
                path_field
                    .variable
                    .write(&value, &mut path)
                    .map_err(fault)?;
            }
            if path_field.project_id {
                project = Some(start..path.len());
            }
        }
        Ok((path, project))
    }

    /// Returns the text of a field of the path; none when it is unset, or the zero value
    /// of an enum, which says that nothing is selected.
    fn path_value<'v>(
        &self,
        view: &'v View<'_>,
        index: FieldIndex,
    ) -> Result<Option<Cow<'v, str>>, Problem> {
        let field = view.field(index);
        if let (Kind::Enum(_), Some(Value::Varint(0))) = (field.kind, view.value(index)) {
            return match field.raw {
                Some(raw) => self.text(view, raw),
                None => Ok(None),
            };
        }
        self.text(view, index)
    }

    /// Returns the text of a field that is set, or of its raw field.
    fn text<'v>(
        &self,
        view: &'v View<'_>,
        index: FieldIndex,
    ) -> Result<Option<Cow<'v, str>>, Problem> {
        let field = view.field(index);
        match view.value(index) {
            Some(value) => text(&self.schema, field, value).map(Some),
            None => match field.raw {
                Some(raw) => self.text(view, raw),
                None => Ok(None),
            },
        }
    }

    /// Returns the value of any field of the request as JSON; none when it is unset.
    pub fn field_json(&self, index: FieldIndex, request: &[u8]) -> Result<Option<Bytes>, Error> {
        let mut json = Vec::new();
        json::field_to_json(&self.schema, self.input, index, request, "", &mut json)
            .map(|set| set.then(|| json.into()))
            .map_err(unreadable)
    }

    /// Returns the body with its constant members.
    fn body(&self, plan: &Plan, request: &[u8], dialect: &str) -> Result<Option<Bytes>, Error> {
        let body = self.own_body(plan, request, dialect)?;
        if self.constant_members.is_empty() {
            return Ok(body);
        }
        // The compiler accepts constant members only where the body is an object.
        let own = body.as_deref().and_then(|json| json.strip_prefix(b"{"));
        let rest = own.unwrap_or(b"}");
        let comma: &[u8] = if rest == b"}" { b"" } else { b"," };
        let json = [b"{", self.constant_members.as_bytes(), comma, rest].concat();
        Ok(Some(json.into()))
    }

    fn own_body(&self, plan: &Plan, request: &[u8], dialect: &str) -> Result<Option<Bytes>, Error> {
        let index = match &self.body {
            // `bind_view` adds a raw body.
            Body::None | Body::Raw(_) => return Ok(None),
            Body::Constant(text) => return Ok(Some(text.clone())),
            Body::Fields => {
                let mut json = Vec::new();
                let skip = |index: FieldIndex| plan.skip[usize::from(index)];
                json::to_json_in(&self.schema, self.input, request, dialect, &skip, &mut json)
                    .map_err(unreadable)?;
                return Ok(Some(finished(json)));
            }
            Body::Field { index } => *index,
        };
        let mut json = Vec::new();
        let is_set = !plan.skip[usize::from(index)]
            && json::field_to_json(&self.schema, self.input, index, request, dialect, &mut json)
                .map_err(unreadable)?;
        Ok(is_set.then(|| finished(json)))
    }
}

/// Returns the text of one value. Strings, the common case, are not copied.
fn text<'v>(schema: &Schema, field: &Field, value: Value<'v>) -> Result<Cow<'v, str>, Problem> {
    if let (Kind::String, Value::Bytes(bytes)) = (field.kind, value) {
        return std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|_| Problem {
                path: field.name.to_string(),
                problem: "is not UTF-8".into(),
            });
    }
    json::text(schema, field, value).map(Cow::Owned)
}

impl Plan {
    /// Copies a message without the fields below its outermost level that are not sent.
    /// The depth is bounded: [`Checker`] has checked the same messages.
    fn prune(&self, node: &Node, wire: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        for item in wire::fields(wire) {
            let (number, value) = item?;
            let rule = node.rules.iter().find(|rule| rule.number == number);
            match (rule, value) {
                (Some(rule), _) if rule.unsent => {}
                (
                    Some(super::plan::Rule {
                        below: Some(at), ..
                    }),
                    Value::Bytes(bytes),
                ) => {
                    let mut inner = Vec::with_capacity(bytes.len());
                    self.prune(&self.nodes[*at], bytes, &mut inner)?;
                    wire::write_bytes(out, number, &inner);
                }
                (_, value) => wire::write_value(out, number, value),
            }
        }
        Ok(())
    }
}

/// Converts the problem of a value: it belongs to the field, if it names one.
fn unreadable(problem: Problem) -> Error {
    if problem.path.is_empty() {
        Error::Malformed(problem.problem)
    } else {
        Error::Binding {
            field: problem.path,
            problem: problem.problem,
        }
    }
}
