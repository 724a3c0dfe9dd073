//! The contract: descriptors as compiled methods. Every diagnostic names file, rpc
//! and option, and stops the start.

mod bind;
mod compile;
mod decode;
mod diagnostics;
mod edit;
mod expression;
mod file;
mod link;
mod merge_pages;
mod paging;
mod plan;
mod resolve;
mod rpc_lookup;
mod template;
#[cfg(test)]
pub(crate) mod tests;
mod values;
mod view;
mod watch;

pub use edit::{Edit, Place as EditPlace};
pub use values::Check;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Error;
use crate::call::{Call, Idempotency, Media, Reply};
use crate::family::{Families, FamilyRules};
pub use crate::schema::Diagnostic;
use crate::schema::{self, FieldIndex, MessageId, Schema};
pub use file::{Download, Upload};
pub use merge_pages::{MergePages, MergedPages};
pub use paging::{Asked, Paging};
pub use resolve::Resolve;
pub use watch::log::{Entry, Grows, Log, Order, Slice};
pub use watch::{Fallback, Find, Found, Held, Hold, SideRead, Start};

/// All methods that the gateway serves, by gRPC path.
#[derive(Debug)]
pub struct Contract {
    methods: HashMap<Box<str>, Arc<Method>>,
    descriptor_sets: Vec<Vec<u8>>,
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
    /// Whether it can be repeated. For a watch, whether its poll can, or the call of
    /// its `start`.
    pub idempotency: Idempotency,
    /// Dialects that lack it.
    pub absent_in: Vec<Box<str>>,
    /// Dialects that may lack it.
    pub unverified_in: Vec<Box<str>>,
    /// HTTP statuses outside 200 to 299 that are success too.
    pub also_success: Vec<u16>,
    /// The request message.
    pub input: MessageId,
    /// The response message.
    pub output: MessageId,
    /// The tables of its descriptor set.
    pub schema: Arc<Schema>,
    /// Set for a watch.
    pub watch: Option<Watch>,
    /// Set for a watch of a log.
    pub log: Option<Log>,
    /// Set for a two-step call.
    pub action: Option<Action>,
    /// Set where path fields may be left empty.
    pub resolve: Option<Resolve>,
    /// Set for a list in pages.
    pub paging: Option<Paging>,
    /// Set for a stream of the items of all pages.
    pub pages: Option<Pages>,
    /// Set where the caller sends a file.
    pub upload: Option<Upload>,
    /// Set where the answer is a file.
    pub download: Option<Download>,
    /// The call needs no credential.
    pub anonymous: bool,
    /// Values that are checked against definitions of the upstream.
    pub check: Option<Check>,
    /// Members that tell into which field a reply is read.
    response_choices: Vec<(Box<str>, FieldIndex)>,
    /// Set for a list that is read whole.
    pub merge_pages: Option<MergePages>,
    binding: bind::Binding,
    /// Set where the answer is read from a redirect.
    location: Option<resolve::Location>,
    /// The field of the response that the whole reply is read into.
    response_body: Option<FieldIndex>,
}

/// A compiled `drawbridge.v1.Action`.
#[derive(Debug)]
pub struct Action {
    /// The document's member that names the action, and its value.
    pub name: Option<(Box<str>, Box<str>)>,
    /// Members that the document must have, with the JSON text to add.
    pub members: Vec<(Box<str>, Box<str>)>,
    /// The field of the request that holds the document.
    pub document: Option<FieldIndex>,
    /// What of the request is put into the document.
    pub edits: Vec<Edit>,
    /// The document is fetched from the path itself.
    pub same_path: bool,
    /// Times in the document are given a colon in their offset.
    pub colon_offsets: bool,
}

/// A compiled `MethodRules.pages`.
#[derive(Debug)]
pub struct Pages {
    /// The rpc that lists one page.
    pub list: Arc<Method>,
    /// Numbers of fields of the stream's own request.
    size: u32,
    token: u32,
    /// The number of the field of its messages that holds the item.
    item: u32,
    default_size: u32,
}

/// A compiled `drawbridge.v1.Watch`.
#[derive(Debug)]
pub struct Watch {
    /// The rpc to poll.
    pub poll: Arc<Method>,
    /// Lists only: the rpc that reads one item by its key.
    pub refresh: Option<Arc<Method>>,
    /// Whether a list is watched, told item by item.
    pub list: bool,
    /// The pause after the first read and after each change.
    pub first_interval: Duration,
    /// The longest pause while nothing changes.
    pub max_interval: Duration,
    /// The watch ends well when the thing is gone after it was seen once.
    pub gone_ends_well: bool,
    /// A call made once, before the first poll.
    pub start: Option<Start>,
    /// Reads beside each poll.
    pub side: Vec<SideRead>,
    /// States that are an end only when they last.
    pub hold: Vec<Hold>,
    /// Where to look for what the poll does not find.
    pub fallback: Option<Fallback>,
    tables: watch::Tables,
}

/// The outcome of a watched resource, as its state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not final: more is to come.
    Pending,
    /// Final, and as it should be.
    Succeeded,
    /// Final, and not as it should be.
    Failed,
}

/// A descriptor set and where it came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// `built-in`, or the file's path.
    pub name: String,
    /// The encoded `FileDescriptorSet`.
    pub bytes: Vec<u8>,
}

/// A response message, ready to be sent.
#[derive(Debug)]
pub struct Decoded {
    /// The protobuf bytes.
    pub message: Bytes,
    /// See [`crate::json::Notes`].
    pub notes: crate::json::Notes,
}

impl Contract {
    /// Compiles the descriptor sets; the services of `drawbridge.v1` and of gRPC
    /// itself are left out, being the gateway's own. All that is wrong is told at
    /// once. Of `additional_bindings` none is used: they are further ways to reach
    /// an rpc, and a caller takes the main one.
    pub fn compile(sources: Vec<Source>, families: &Families) -> Result<Self, Vec<Diagnostic>> {
        compile::compile(sources, families)
    }

    /// The method at this gRPC path.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// All methods, sorted by path.
    pub fn methods(&self) -> Vec<&Arc<Method>> {
        let mut methods: Vec<_> = self.methods.values().collect();
        methods.sort_by(|a, b| a.path.cmp(&b.path));
        methods
    }

    /// The encoded descriptor sets, for server reflection.
    pub fn descriptor_sets(&self) -> &[Vec<u8>] {
        &self.descriptor_sets
    }

    /// The services by full name, sorted, each with its family.
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
    /// Binds a request message to the REST call it stands for, in this order: the
    /// wire format (`Error::Malformed`), REQUIRED fields, path, query, body (each
    /// `Error::Binding`). A required text, list or map that is empty counts as
    /// missing, as does a zero whose field is not `optional`. Fields that are
    /// OUTPUT_ONLY, or absent in the dialect, are not sent. Nothing is guessed.
    pub fn bind(&self, request: &[u8], dialect: &str) -> Result<Call, Error> {
        self.binding.bind(request, dialect)
    }

    /// Reads a successful reply as the response message; for a stream, that of the
    /// rpc that it calls. 204 is an empty message; so is any 202 where the response
    /// has no fields, and a body that is empty or `null`, unless it answers a GET
    /// whose response has fields (a list may be `null`). All else that is not JSON
    /// of the response's form is `Error::Decode`, with the upstream's request id.
    pub fn decode(&self, reply: &Reply) -> Result<Decoded, Error> {
        let watched = self.watch.as_ref().map(|watch| &watch.poll);
        let logged = self.log.as_ref().map(|log| &log.poll);
        let paged = self.pages.as_ref().map(|pages| &pages.list);
        let method = watched.or(logged).or(paged).map_or(self, |called| called);
        decode::decode(method, reply)
            .map_err(|error| error.of_request(self.family_rules.request_id(&reply.headers)))
    }

    /// Whether the rpc answers with a stream.
    pub fn is_stream(&self) -> bool {
        self.watch.is_some()
            || self.log.is_some()
            || self.pages.is_some()
            || self.download.is_some()
    }

    /// For a two-step call: the document the caller has set in the request, as
    /// JSON, or none. It is the body of the bound call, too.
    pub fn document(&self, request: &[u8]) -> Result<Option<Bytes>, Error> {
        match &self.action {
            Some(Action {
                document: Some(_), ..
            }) => self.binding.field_body(request),
            _ => Ok(None),
        }
    }

    /// For a two-step call: the call that fetches the document, which stands at the
    /// path of `google.api.http`, as a rule without its last segment. Of the query,
    /// only what every call has.
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
            media: Media::default(),
        })
    }

    /// The value of a field of the request as JSON; none when it is not set.
    pub fn field_json(&self, index: FieldIndex, request: &[u8]) -> Result<Option<Bytes>, Error> {
        self.binding.field_json(index, request)
    }

    /// Whether the dialect has the operation.
    pub fn is_in(&self, dialect: &str) -> bool {
        schema::is_in(&self.absent_in, dialect)
    }
}
