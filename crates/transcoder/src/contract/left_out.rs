//! Rpcs of a descriptor set that are not served: those without a REST call, plain streams,
//! and those that the selection of the set leaves out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use super::{Diagnostic, Method, Source};
use crate::api::drawbridge::v1::MethodRules;
use crate::api::google::api::HttpRule;

/// An rpc that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The proto file.
    pub file: Box<str>,
    /// The full name of the service.
    pub service: Box<str>,
    /// The rpc's own name.
    pub name: Box<str>,
    /// Why it is not served.
    pub reason: LeftOutReason,
}

/// Why an rpc is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOutReason {
    /// It has no `google.api.http`.
    NoRestCall,
    /// It is server-streaming, and not a watch, a stream of pages or a download.
    ServerStream,
    /// It is client-streaming, and not an upload.
    ClientStream,
    /// It streams in both directions.
    BothStreams,
    /// The [`Selection`] of its descriptor set leaves it out.
    NotSelected,
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRestCall => {
                "it has no `google.api.http`: annotate the REST call, for example `get: \
                 \"/v1/things/{id}\"`"
            }
            Self::ServerStream => {
                "it is server-streaming: set `watch`, `pages` or `download` of \
                 (drawbridge.v1.method)"
            }
            Self::ClientStream => "it is client-streaming: set `upload` of (drawbridge.v1.method)",
            Self::BothStreams => "it streams in both directions, and a REST call does not",
            Self::NotSelected => {
                "`include` or `exclude` of its descriptor set in the configuration leave it out"
            }
        })
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            service,
            name,
            reason,
        } = self;
        write!(f, "{service}.{name} ({file}) is not served: {reason}")
    }
}

impl LeftOut {
    pub(super) fn new(rpc: &MethodDescriptor, reason: LeftOutReason) -> Self {
        Self {
            file: rpc.parent_file().name().into(),
            service: rpc.parent_service().full_name().into(),
            name: rpc.name().into(),
            reason,
        }
    }
}

/// Returns why the annotations of an rpc leave it out. Rules of `drawbridge.v1` show that it
/// is meant to be served: what it lacks is then an error.
pub(super) fn by_annotations(
    rpc: &MethodDescriptor,
    http: Option<&HttpRule>,
    rules: &MethodRules,
) -> Option<LeftOutReason> {
    if *rules != MethodRules::default() {
        return None;
    }
    // Some APIs annotate rpcs without a REST call as `option (google.api.http) = {}`.
    let has_call = http.is_some_and(|http| *http != HttpRule::default());
    match (rpc.is_client_streaming(), rpc.is_server_streaming()) {
        (true, true) => Some(LeftOutReason::BothStreams),
        (true, false) => Some(LeftOutReason::ClientStream),
        (false, true) => Some(LeftOutReason::ServerStream),
        (false, false) if !has_call => Some(LeftOutReason::NoRestCall),
        (false, false) => None,
    }
}

/// Describes the rpcs, by gRPC path: one entry each, or one for a service of which no rpc is
/// served.
pub(super) fn describe<'a>(
    left_out: impl Iterator<Item = &'a LeftOut>,
    methods: &HashMap<Box<str>, Arc<Method>>,
) -> Vec<Diagnostic> {
    let served: BTreeSet<&str> = methods.values().map(|method| &*method.service).collect();
    let mut services: BTreeMap<&str, Vec<&LeftOut>> = BTreeMap::new();
    for rpc in left_out {
        services.entry(&rpc.service).or_default().push(rpc);
    }
    let mut all = Vec::new();
    for (service, rpcs) in services {
        if served.contains(service) {
            all.extend(rpcs.iter().map(|rpc| Diagnostic {
                file: rpc.file.to_string(),
                element: format!("{service}.{}", rpc.name),
                option: String::new(),
                problem: format!("is not served: {}", rpc.reason),
            }));
            continue;
        }
        let reasons: BTreeSet<LeftOutReason> = rpcs.iter().map(|rpc| rpc.reason).collect();
        let reasons = reasons.iter().map(|reason| {
            let mut with = rpcs.iter().filter(|rpc| rpc.reason == *reason);
            let first = with.next().map_or("", |rpc| &rpc.name);
            match with.count() {
                0 => format!("{first}: {reason}"),
                more => format!("{first} and {more} more: {reason}"),
            }
        });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        all.push(Diagnostic {
            file: rpcs.first().map_or("", |rpc| &rpc.file).to_owned(),
            element: service.to_owned(),
            option: String::new(),
            problem: format!("no rpc of this service is served: {reasons}"),
        });
    }
    all
}

/// Describes a descriptor set of which no rpc is served.
pub(super) fn unused(source: &Source, left_out: &BTreeMap<Box<str>, LeftOut>) -> Diagnostic {
    let is_selected = |rpc: &LeftOut| rpc.reason != LeftOutReason::NotSelected;
    let problem = if left_out.is_empty() {
        "it has no service: create it from the protos of the services, or remove it from the \
         configuration"
    } else if left_out.values().any(is_selected) {
        "annotate an rpc, or remove the descriptor set from the configuration"
    } else {
        "`exclude` leaves out all of them: remove an entry, or the descriptor set from the \
         configuration"
    };
    Diagnostic {
        file: source.name.clone(),
        element: String::new(),
        option: String::new(),
        problem: format!("no rpc of this descriptor set is served: {problem}"),
    }
}
