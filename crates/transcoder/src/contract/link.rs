//! Compiles the options that name other rpcs, once all rpcs are compiled.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use super::called::Called;
use super::diagnostics::Diagnostics;
use super::left_out::LeftOut;
use super::rpc_lookup::RpcLookup;
use super::{Diagnostic, Method, pages, resolve, watch};
use crate::api::drawbridge::v1::MethodRules;

/// An rpc whose options name other rpcs, compiled except for those options.
pub(super) struct Unlinked {
    pub rpc: MethodDescriptor,
    pub method: Method,
    pub rules: MethodRules,
}

impl Unlinked {
    /// Returns whether these options name another rpc.
    pub fn is(rules: &MethodRules) -> bool {
        !rules.resolve.is_empty() || is_stream(rules)
    }
}

fn is_stream(rules: &MethodRules) -> bool {
    rules.watch.is_some() || !rules.pages.is_empty()
}

/// Links the rpcs of one descriptor set to each other, and adds them to `methods`. An
/// rpc that cannot be linked is reported.
pub(super) fn link(
    unlinked: Vec<Unlinked>,
    methods: &mut HashMap<Box<str>, Arc<Method>>,
    left_out: &BTreeMap<Box<str>, LeftOut>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    // Streams call unary rpcs, and a log names a watch: this is their order.
    let (streams, unary): (Vec<_>, Vec<_>) =
        unlinked.into_iter().partition(|one| is_stream(&one.rules));
    let (logs, streams): (Vec<_>, Vec<_>) = streams
        .into_iter()
        .partition(|one| one.rules.watch.as_ref().is_some_and(watch::log::is_log));
    for group in [unary, streams, logs] {
        let linked: Vec<_> = group
            .into_iter()
            .map(|one| Arc::new(one.link(methods, left_out, diagnostics)))
            .collect();
        methods.extend(linked.into_iter().map(|m| (m.path.clone(), m)));
    }
}

impl Unlinked {
    fn link(
        self,
        methods: &HashMap<Box<str>, Arc<Method>>,
        left_out: &BTreeMap<Box<str>, LeftOut>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Method {
        let Self {
            rpc,
            mut method,
            rules,
        } = self;
        let mut diagnostics = Diagnostics::of_rpc(&rpc, diagnostics);
        let service = method.service.clone();
        let rpcs = RpcLookup {
            service: &service,
            methods,
            left_out,
        };
        if !rules.resolve.is_empty() {
            method.resolve = compile_resolve(&rules.resolve, &method, &rpcs, &mut diagnostics);
        }
        let called =
            if let Some(rule) = rules.watch.as_ref().filter(|rule| watch::log::is_log(rule)) {
                method.log = watch::log::compile(rule, &method, &rpcs, &mut diagnostics);
                method.log.as_ref().map(|log| &log.poll)
            } else if let Some(rule) = &rules.watch {
                method.watch = watch::compile(rule, &method, &rpcs, &mut diagnostics);
                // Repeated calls of a watch are its polls, or the call of `start`.
                method
                    .watch
                    .as_ref()
                    .map(|watch| watch.start.as_ref().map_or(&watch.poll, |start| &start.rpc))
            } else if !rules.pages.is_empty() {
                method.pages = pages::compile(&rules.pages, &method, &rpcs, &mut diagnostics);
                method.pages.as_ref().map(|pages| &pages.list)
            } else {
                None
            };
        if let Some(idempotency) = called.map(|called| called.idempotency) {
            method.idempotency = idempotency;
            method.binding.idempotency = idempotency;
            for binding in &mut method.binding.additional {
                binding.idempotency = idempotency;
            }
        }
        inherit(&mut method);
        method
    }
}

/// Makes the options of the rpc that a stream polls or lists those of the stream, too.
fn inherit(stream: &mut Method) {
    let Some(polled) = stream.polled().cloned() else {
        return;
    };
    let start = stream.watch.as_ref().and_then(|watch| watch.start.as_ref());
    let started = start.map(|start| Arc::clone(&start.rpc));
    let has_start = started.is_some();
    for rpc in started.iter().chain([&polled]) {
        extend(&mut stream.absent_in, &rpc.absent_in);
    }
    if has_start {
        return;
    }
    extend(&mut stream.unverified_in, &polled.unverified_in);
    extend(&mut stream.also_success, &polled.also_success);
    stream.anonymous |= polled.anonymous;
    stream.called = Some(Called::new(stream, &polled));
    if stream.resolve.is_none()
        && let Some(resolve) = &polled.resolve
    {
        // Without effect where the fields of the stream's path are REQUIRED.
        let mut ignored = Vec::new();
        let mut diagnostics = Diagnostics {
            file: String::new(),
            element: String::new(),
            all: &mut ignored,
        };
        let lookup = Arc::clone(&resolve.rpc);
        stream.resolve = resolve_by(lookup, stream, &mut diagnostics);
    }
}

fn extend<T: Clone + PartialEq>(all: &mut Vec<T>, more: &[T]) {
    for one in more {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
}

fn compile_resolve(
    name: &str,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<super::Resolve> {
    let Some(lookup) = rpcs.find(name).filter(|f| f.family == method.family) else {
        let problem = rpcs.left_out_or(name, || {
            format!(
                "`{name}` is not a unary rpc of this service or package, is itself invalid, or \
                 has a `resolve` of its own"
            )
        });
        diagnostics.report_rule("resolve", problem);
        return None;
    };
    resolve_by(lookup.clone(), method, diagnostics)
}

fn resolve_by(
    lookup: Arc<Method>,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<super::Resolve> {
    let in_path: Vec<&str> = method
        .binding
        .path_fields()
        .filter(|(steps, _)| steps.is_empty())
        .map(|(_, field)| &*field.name)
        .collect();
    resolve::compile(lookup, &method.schema, method.input, &in_path, diagnostics)
}
