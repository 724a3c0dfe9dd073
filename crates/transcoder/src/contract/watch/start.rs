//! `start`: a call made once, before the first poll, and `find`, the list in which the
//! resource that it creates appears.

use std::sync::Arc;

use bytes::Bytes;

use super::call_compiler::CallCompiler;
use super::field_path::Part;
use super::fields::{shared_fields, translated};
use super::request_template::{RequestTemplate, Sources, Types};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::contract::Method;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::rpc_lookup::check_same_call;

/// A compiled `drawbridge.v1.Start`.
#[derive(Debug)]
pub struct Start {
    /// The rpc that is called.
    pub rpc: Arc<Method>,
    /// Builds the poll's request from the response, and path fields from the watch's
    /// request.
    pub(super) poll: RequestTemplate,
    /// Fields that the watch's request and that of the call have in common: number in
    /// each.
    pub(super) fields: Vec<(u32, u32)>,
    /// The list in which the created resource appears.
    pub find: Option<Find>,
    /// The response may identify no resource, because nothing was started.
    pub may_start_nothing: bool,
    /// Number of the field of the stream's messages for the response.
    pub(super) number: u32,
}

/// A list that is read until it contains the resource.
#[derive(Debug)]
pub struct Find {
    /// The rpc that reads the list.
    pub rpc: Arc<Method>,
    request: RequestTemplate,
    item: Part,
    then: RequestTemplate,
}

impl CallCompiler<'_> {
    pub fn start(&self, rule: &rules::Start, diagnostics: &mut Diagnostics<'_>) -> Option<Start> {
        let rpc = self.rpc(&rule.call, "watch.start", diagnostics)?;
        check_same_call(self.method, &rpc, "watch.start.call", diagnostics);
        let types = Types {
            item: Some(rpc.output),
            poll: None,
            request: self.method.input,
            copied: self.method.input,
        };
        let poll = match rule.find {
            // `find` fills the request.
            Some(_) if rule.bind.is_empty() => RequestTemplate::default(),
            _ => RequestTemplate::compile(&rule.bind, self.poll, types, "watch.start", diagnostics),
        };
        let find = match &rule.find {
            Some(find) => Some(self.find(find, types, diagnostics)?),
            None => None,
        };
        let name = field_name(&rule.field);
        let response = self.schema.message(rpc.output);
        let number = self.stream_field(
            name,
            Self::fits(Part::Response, rpc.output),
            &format!("a single {}", response.name),
            "watch.start",
            diagnostics,
        )?;
        Some(Start {
            fields: shared_fields(self.schema, self.method.input, rpc.input),
            rpc,
            poll,
            find,
            may_start_nothing: rule.may_start_nothing,
            number,
        })
    }

    fn find(
        &self,
        rule: &rules::Find,
        types: Types,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Find> {
        const OPTION: &str = "watch.start.find";
        let rpc = self.read(&rule.call, OPTION, diagnostics)?;
        let request = RequestTemplate::compile(&rule.bind, &rpc, types, OPTION, diagnostics);
        let (item, id) = match Part::find(self.schema, rpc.output, &rule.item) {
            Ok((part @ Part::List(_), id)) => (part, id),
            Ok(_) => {
                diagnostics.report_rule("watch.start.find.item", "must name a list of messages");
                return None;
            }
            Err(problem) => {
                diagnostics.report_rule("watch.start.find.item", problem);
                return None;
            }
        };
        let types = Types {
            item: Some(id),
            ..types
        };
        let then = "watch.start.find.bind_poll";
        let then = RequestTemplate::compile(&rule.bind_poll, self.poll, types, then, diagnostics);
        Some(Find {
            rpc,
            request,
            item,
            then,
        })
    }
}

/// Returns the name of the field for the response.
pub(super) fn field_name(given: &str) -> &str {
    if given.is_empty() { "started" } else { given }
}

impl Start {
    /// Returns the request of the call, from that of the watch.
    pub fn request(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        translated(request, &self.fields)
    }

    /// Returns the poll's request, from the watch's request and the response; none when
    /// the response does not identify a resource.
    pub fn poll_request(&self, request: &[u8], response: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item: response,
            poll: &[],
            request,
        };
        if self.poll.is_empty() && self.find.is_some() {
            return None;
        }
        self.poll.fill(&self.rpc.schema, request, sources, true)
    }
}

impl Find {
    /// Returns the request for the list, from the watch's request and the response of
    /// the call; none when a bound value is missing.
    pub fn request(&self, request: &[u8], started: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item: started,
            poll: &[],
            request,
        };
        let schema = &self.rpc.schema;
        self.request.fill(schema, request, sources, true)
    }

    /// Returns the poll's request, once the list contains a suitable item.
    pub fn poll_request(&self, request: &[u8], list: &Bytes) -> Result<Option<Vec<u8>>, Error> {
        let schema = &*self.rpc.schema;
        let items = self.item.items(schema, self.rpc.output, list)?;
        Ok(items.unwrap_or_default().iter().find_map(|item| {
            let sources = Sources {
                item,
                poll: &[],
                request,
            };
            self.then.fill(schema, request, sources, true)
        }))
    }
}
