//! Compiles descriptor sets into methods: `compile` checks the annotations, `diagnostics`
//! collects what is wrong with them. Every diagnostic names file, rpc and option, and stops
//! the start.

mod action;
mod bind;
mod called;
mod canonical;
mod compile;
mod decode;
mod descriptor_set;
mod diagnostics;
mod download;
mod expression;
mod file_fields;
mod health_check;
mod left_out;
mod link;
mod location;
mod merge_pages;
mod named_field;
mod page;
mod pages;
mod paging;
mod path_template;
mod plan;
mod raw_body;
mod request_check;
mod required_member;
mod resolve;
mod rpc_lookup;
mod selection;
mod served_types;
#[cfg(test)]
pub(crate) mod tests;
mod upload;
mod view;
mod watch;

pub use action::{Action, Edit, EditTarget};
pub use canonical::{CanonicalJson, Rpc};
pub use request_check::Check;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use self::bind::Request;
use crate::Error;
use crate::call::{Call, Idempotency, Media, Reply};
use crate::family::{Evidence, Families, FamilyRules};
pub use crate::schema::Diagnostic;
use crate::schema::{self, FieldIndex, MessageId, Schema};
pub use download::{Download, MAX_START_BYTES, ObjectScan};
pub use left_out::{LeftOut, LeftOutReason};
pub use merge_pages::{MergePages, MergedPages};
pub use named_field::{NamedField, Unnamed};
pub use pages::Pages;
pub use paging::{Following, PageRequest, PagesBefore, Paging};
pub use resolve::Resolve;
pub use selection::{Selection, selectable};
pub use upload::Upload;
pub use watch::log::{Entry, Log, LogKind, Order, Slice};
pub use watch::{DebounceRule, Fallback, FinalAfter, Find, Found, SideRead, Start};

/// The services that the gateway implements. A descriptor set can contain them; its
/// annotations of them are not read.
pub const GATEWAY_SERVICES: [&str; 4] = [
    "drawbridge.v1.GatewayService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// All methods that the gateway serves, by gRPC path.
#[derive(Debug)]
pub struct Contract {
    methods: HashMap<Box<str>, Arc<Method>>,
    left_out: BTreeMap<Box<str>, LeftOut>,
    /// The descriptor sets of which no rpc is served.
    unused: Vec<Diagnostic>,
    descriptor_sets: Vec<Vec<u8>>,
    /// By family.
    health_checks: BTreeMap<Box<str>, Arc<Method>>,
}

/// One rpc, compiled.
#[derive(Debug)]
pub struct Method {
    /// The gRPC path: `/openstack.orchestration.v1.StackService/GetStack`.
    pub path: Box<str>,
    /// The full name of the service.
    pub service: Box<str>,
    /// The rpc's own name.
    pub name: Box<str>,
    /// The family of upstreams that serve it.
    pub family: Box<str>,
    /// The rules of that family.
    pub family_rules: FamilyRules,
    /// The HTTP method.
    pub verb: http::Method,
    /// The path template, as annotated: `/v1/{project_id}/stacks/{stack_id}`.
    pub template: Box<str>,
    /// Whether the call can be repeated. For a watch, whether its poll can, or the call
    /// of its `start`.
    pub idempotency: Idempotency,
    /// Dialects without the operation.
    pub absent_in: Vec<Box<str>>,
    /// Dialects that may not have the operation.
    pub unverified_in: Vec<Box<str>>,
    /// HTTP statuses outside 200 to 299 that count as success.
    pub also_success: Vec<u16>,
    /// The request message.
    pub input: MessageId,
    /// The response message.
    pub output: MessageId,
    /// The tables of its descriptor set.
    pub schema: Arc<Schema>,
    /// Set for a watch of a resource or a list.
    pub watch: Option<Watch>,
    /// Set for a watch of a log.
    pub log: Option<Log>,
    /// Set for a two-step call.
    pub action: Option<Action>,
    /// Set where the client can leave path fields empty.
    pub resolve: Option<Resolve>,
    /// Set for a list rpc that returns one page.
    pub paging: Option<Paging>,
    /// Set for a stream of the items of all pages.
    pub pages: Option<Pages>,
    /// Set where the client sends a file.
    pub upload: Option<Upload>,
    /// Set where the response body is a file.
    pub download: Option<Download>,
    /// The call needs no credential.
    pub anonymous: bool,
    /// Values that are compared with definitions of the upstream before they are sent.
    pub check: Option<Check>,
    /// Members of a reply, each with the field that the reply is decoded into when it
    /// has the member.
    response_choices: Vec<(Box<str>, FieldIndex)>,
    /// Set for a list whose further pages are fetched and appended.
    pub merge_pages: Option<MergePages>,
    binding: bind::Binding,
    /// Set for a stream that polls or lists: its calls are those of that rpc.
    called: Option<called::Called>,
    /// Set where fields of the response are read from `Location`.
    location: Option<location::Location>,
    /// The field of the response that the reply's body is decoded into.
    response_body: Option<FieldIndex>,
    /// Set where the reply's body is not decoded.
    raw_response: Option<raw_body::RawResponse>,
    /// The field of the response that watches and logs read; set when they are linked.
    watched_member: OnceLock<FieldIndex>,
    /// For a two-step call, the rpc that reads its document; set when all rpcs are compiled.
    document_read: OnceLock<Arc<Method>>,
}

/// A compiled `drawbridge.v1.Watch`.
#[derive(Debug)]
pub struct Watch {
    /// The rpc to poll.
    pub poll: Arc<Method>,
    /// Lists only: the rpc that reads one item by its key.
    pub refresh: Option<Arc<Method>>,
    /// Whether a list is watched, item by item.
    pub list: bool,
    /// Pause after the first poll and after each change.
    pub initial_interval: Duration,
    /// Longest pause while nothing changes.
    pub max_interval: Duration,
    /// Ends the watch with SUCCEEDED when the resource is not found after it was found
    /// once.
    pub not_found_succeeds: bool,
    /// A call made once, before the first poll.
    pub start: Option<Start>,
    /// Further reads with each poll.
    pub side_reads: Vec<SideRead>,
    /// States that are final only when they last.
    pub final_after: Vec<FinalAfter>,
    /// The rpc to read when the poll does not find the resource.
    pub fallback: Option<Fallback>,
    tables: watch::Tables,
}

/// The outcome of a watched resource, by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not final: the watch goes on.
    Pending,
    /// Final, by `succeeded`.
    Succeeded,
    /// Final, by `failed`.
    Failed,
}

/// A descriptor set and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `built-in`, or the file's path.
    pub name: String,
    /// The encoded `FileDescriptorSet`.
    pub bytes: Vec<u8>,
    /// The rpcs to serve.
    pub selection: Selection,
}

impl Source {
    /// Returns a source of which all rpcs are selected.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes,
            selection: Selection::default(),
        }
    }
}

/// An encoded response message.
#[derive(Debug)]
pub struct Decoded {
    /// The protobuf bytes.
    pub message: Bytes,
    /// See [`crate::json::Notes`].
    pub notes: crate::json::Notes,
}

impl Contract {
    /// Compiles the descriptor sets and reports all problems at once. Rpcs without
    /// annotations are left out; see [`Contract::left_out`]. So are [`GATEWAY_SERVICES`].
    pub fn compile(sources: Vec<Source>, families: &Families) -> Result<Self, Vec<Diagnostic>> {
        compile::compile(sources, families)
    }

    /// Returns the method of this gRPC path.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// Returns all methods, sorted by path.
    pub fn methods(&self) -> Vec<&Arc<Method>> {
        let mut methods: Vec<_> = self.methods.values().collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        methods
    }

    /// Returns the rpc that shows whether an upstream of the family serves its API and accepts
    /// the credentials. It has no side effects and an empty request.
    pub fn health_check(&self, family: &str) -> Option<&Arc<Method>> {
        self.health_checks.get(family)
    }

    /// Returns the rpcs that are not served, by gRPC path.
    pub fn left_out(&self) -> &BTreeMap<Box<str>, LeftOut> {
        &self.left_out
    }

    /// Describes the selected rpcs that are not served: one entry each, or one for a service
    /// of which no rpc is served. Then the descriptor sets of which no rpc is served.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let is_selected = |rpc: &&LeftOut| rpc.reason != LeftOutReason::NotSelected;
        let mut all = left_out::describe(self.left_out.values().filter(is_selected), &self.methods);
        all.extend(self.unused.iter().cloned());
        all
    }

    /// Describes the rpcs that are not selected, as [`Contract::warnings`].
    pub fn not_selected(&self) -> Vec<Diagnostic> {
        let is_not = |rpc: &&LeftOut| rpc.reason == LeftOutReason::NotSelected;
        left_out::describe(self.left_out.values().filter(is_not), &self.methods)
    }

    /// Returns the encoded descriptor sets, for server reflection.
    pub fn descriptor_sets(&self) -> &[Vec<u8>] {
        &self.descriptor_sets
    }

    /// Returns the services by full name, sorted, each with its family.
    pub fn services(&self) -> BTreeMap<&str, &str> {
        self.methods
            .values()
            .map(|method| (&*method.service, &*method.family))
            .collect()
    }

    /// Returns all methods as a Markdown table, one row each, sorted by path.
    pub fn coverage(&self) -> String {
        let mut table = "| Service | RPC | REST | Absent in | Retried |\n\
                         |---|---|---|---|---|\n"
            .to_owned();
        for method in self.methods() {
            let retried = match method.idempotency {
                Idempotency::NoSideEffects | Idempotency::Idempotent => "yes",
                Idempotency::NonIdempotent => "no",
            };
            table += &format!(
                "| `{}` | `{}`{} | `{} {}` | {} | {retried} |\n",
                method.service,
                method.name,
                match () {
                    () if method.upload.is_some() => " (stream in)",
                    () if method.is_stream() => " (stream)",
                    () => "",
                },
                method.verb,
                method.template,
                method.absent_in.join(", "),
            );
        }
        table
    }
}

impl Method {
    /// Binds a request message to its REST call, in this order: the wire format
    /// (`Error::Malformed`), REQUIRED fields, path, query, body (each
    /// `Error::Binding`). An empty string, list or map counts as missing, and so do a
    /// zero whose field is not `optional` and the zero value of an enum. Fields that are
    /// OUTPUT_ONLY, or absent in the dialect, are not sent.
    ///
    /// The call of a stream without `start` is that of the rpc which it polls or lists,
    /// with all options of that rpc, `additional_bindings` included; the stream's request
    /// must satisfy the rules of both.
    ///
    /// With `additional_bindings`, the first binding is used whose path fields are all
    /// set, to values of the form that its path has.
    pub fn bind(&self, request: &[u8], dialect: &str) -> Result<Call, Error> {
        self.bind_request(Request::of(request), dialect)
    }

    /// Binds a request as [`Self::bind`] does; a body of bytes shares the request's buffer.
    pub fn bind_shared(&self, request: &Bytes, dialect: &str) -> Result<Call, Error> {
        self.bind_request(Request::within(request), dialect)
    }

    fn bind_request(&self, request: Request<'_>, dialect: &str) -> Result<Call, Error> {
        if let Some(called) = &self.called {
            self.binding.check(request.bytes, dialect)?;
            return called.bind(request.bytes, dialect);
        }
        if let Some(rule) = &self.merge_pages {
            rule.check(request.bytes)?;
        }
        let mut call = self.binding.bind(request, dialect)?;
        if self.raw_response.is_some() {
            call.media.accept = Some(HeaderValue::from_static("*/*"));
        }
        Ok(call)
    }

    /// Decodes a successful reply into the response message; for a stream, into that of
    /// the rpc that it calls. The body must hold the requested resource: the wrapper
    /// member with a known member in it, the list (also `null`), or at least one known
    /// member. A response without fields is decoded from any body but a web page. An empty
    /// body and a 204 are an empty message there, where the response is arbitrary JSON or a
    /// map, and in reply to a DELETE. A body that becomes a `google.api.HttpBody`, or bytes by
    /// `response_body`, is not decoded. Any other reply is `Error::NotTheResource`,
    /// `Error::ErrorBody` where the family recognizes it, or `Error::Decode` where a member
    /// cannot be read, with the upstream's request id.
    ///
    /// The call is that of the first binding. With `additional_bindings`, use
    /// [`Self::decode_reply_to`].
    pub fn decode(&self, reply: &Reply) -> Result<Decoded, Error> {
        let method = self.polled().map_or(self, |polled| polled);
        self.decode_reply_to(&method.verb, reply)
    }

    /// Decodes the reply to a call with this verb as [`Self::decode`] does.
    pub fn decode_reply_to(&self, verb: &http::Method, reply: &Reply) -> Result<Decoded, Error> {
        let method = self.polled().map_or(self, |polled| polled);
        decode::decode(method, verb, reply).map_err(|error| self.of_reply(error, reply))
    }

    /// Adds the upstream's id of the request to an error about its reply.
    fn of_reply(&self, error: Error, reply: &Reply) -> Error {
        error.of_request(self.family_rules.request_id(&reply.headers))
    }

    /// Returns the request of the rpc that a stream without `start` polls or lists; none
    /// for other methods.
    pub fn polled_request(&self, request: &[u8]) -> Result<Option<Bytes>, Error> {
        let called = self.called.as_ref();
        let request = called.map(|called| called.request(request));
        Ok(request.transpose()?.map(Bytes::from))
    }

    /// Returns the rpc that a stream polls or lists.
    fn polled(&self) -> Option<&Arc<Method>> {
        let watched = self.watch.as_ref().map(|watch| &watch.poll);
        let logged = self.log.as_ref().map(|log| &log.poll);
        let paged = self.pages.as_ref().map(|pages| &pages.list);
        watched.or(logged).or(paged)
    }

    /// Returns whether the rpc is server-streaming.
    pub fn is_stream(&self) -> bool {
        self.watch.is_some()
            || self.log.is_some()
            || self.pages.is_some()
            || self.download.is_some()
    }

    /// Returns the rpc whose REST calls a stream makes; none for others.
    fn called_rpc(&self) -> Option<&Self> {
        self.called.as_ref().map(called::Called::rpc)
    }

    /// Returns whether a call of the rpc can change something, by any of its bindings.
    pub fn may_change(&self) -> bool {
        self.binding.may_change()
    }

    /// Returns the document that the client has set in the request of a two-step call,
    /// as JSON; none when it is unset. It is the body of the bound call, too.
    pub fn document(&self, request: &[u8]) -> Result<Option<Bytes>, Error> {
        match &self.action {
            Some(Action {
                document: Some(_), ..
            }) => self.binding.field_body(request),
            _ => Ok(None),
        }
    }

    /// Returns the call of a two-step call that fetches the document. Its path is that
    /// of `google.api.http`, without the last segment unless `same_path` is set. Its
    /// query has the constant parameters only.
    pub fn document_call(&self, request: &[u8]) -> Result<Call, Error> {
        let (mut path, project) = self.binding.own_path(request)?;
        let same = self.action.as_ref().is_some_and(|action| action.same_path);
        if let Some(end) = path.rfind('/').filter(|_| !same) {
            path.truncate(end);
        }
        Ok(Call {
            verb: http::Method::GET,
            project: project.filter(|at| at.end <= path.len()),
            path,
            query: self.binding.constant_query.to_string(),
            body: None,
            idempotency: Idempotency::NoSideEffects,
            declares_idempotency: false,
            media: Media::default(),
        })
    }

    /// Returns the rpc that reads the document of a two-step call: a GET of the same path.
    pub fn document_read(&self) -> Option<&Arc<Method>> {
        self.document_read.get()
    }

    /// Returns the HTTP status of a body that is an error of the family.
    fn error_status(&self, body: &[u8], evidence: Evidence<'_>) -> Option<u16> {
        (self.family_rules.error_status?)(body, evidence)
    }

    /// Returns the path template of the document of a two-step call, with `{}` for its
    /// variables.
    fn document_template(&self) -> Option<String> {
        let action = self.action.as_ref()?;
        let template = path_template::shape(&self.template);
        match template.rfind('/') {
            Some(end) if !action.same_path => Some(template[..end].to_owned()),
            _ => Some(template),
        }
    }

    /// Returns the value of a field of the request as JSON; none when it is unset.
    pub fn field_json(&self, index: FieldIndex, request: &[u8]) -> Result<Option<Bytes>, Error> {
        self.binding.field_json(index, request)
    }

    /// Returns whether the dialect has the operation.
    pub fn is_in(&self, dialect: &str) -> bool {
        schema::is_in(&self.absent_in, dialect)
    }
}
