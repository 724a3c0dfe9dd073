//! What identifies a poll loop.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::credentials::CredentialId;
use crate::engine::call_context::StreamContext;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::Method;

/// Identifies a poll loop: streams with equal keys send equal messages and share it.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) upstream: Box<str>,
    /// The addresses of upstream and method: a reload can replace them by others of the same
    /// name, whose streams are polled by themselves. A loop keeps both, so that no others can
    /// have its addresses.
    pub(super) instances: (usize, usize),
    /// The rpc of the watch, as `package.Service/Method`. It determines what is polled and what
    /// is sent.
    pub(super) operation: Box<str>,
    /// The bound call: verb, path, position of the project in the path, query, body.
    pub(super) verb: http::Method,
    pub(super) path: String,
    pub(super) project: Option<Range<usize>>,
    pub(super) query: String,
    pub(super) body: Option<Bytes>,
    /// Clients with different credentials share nothing.
    pub(super) credential: CredentialId,
    /// The requested language, where the family forwards it.
    pub(super) language: Option<HeaderValue>,
    /// What else of the request affects the messages. For a watch that begins with a call,
    /// a unique number: its loop is never shared.
    pub(super) discriminator: Vec<u8>,
}

impl Key {
    pub(super) fn new(
        method: &Arc<Method>,
        call: &Call,
        context: &StreamContext,
        discriminator: Vec<u8>,
    ) -> Self {
        let StreamContext {
            upstream, client, ..
        } = context;
        Self {
            upstream: upstream.settings.name.as_str().into(),
            instances: (Arc::as_ptr(upstream).addr(), Arc::as_ptr(method).addr()),
            operation: method.path[1..].into(),
            verb: call.verb.clone(),
            path: call.path.clone(),
            project: call.project.clone(),
            query: call.query.clone(),
            body: call.body.clone(),
            credential: upstream.credentials.credential_id(client),
            language: upstream
                .family
                .accept_language
                .and_then(|_| client.accept_language.clone()),
            discriminator,
        }
    }
}
