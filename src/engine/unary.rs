//! A unary rpc from its request to its response: bind, call, decode. The dispatcher calls it
//! for clients, a watch for its `start` call.

use bytes::Bytes;
use http::HeaderMap;

use super::action;
use super::call_context::CallContext;
use super::pager::{self, MergeCursor, OnRepeat, Pager};
use crate::error::Error;
use drawbridge_transcoder::call::{Call, Reply};
use drawbridge_transcoder::contract::{Decoded, Method};
use drawbridge_transcoder::json::Notes;

/// The response to a unary rpc.
#[derive(Debug)]
pub struct UnaryResponse {
    /// The response message.
    pub decoded: Decoded,
    /// The headers of the upstream's response, of the first page for a merged list.
    pub headers: HeaderMap,
}

/// Makes the call of `method`: two calls for an action, one per page for a merged list.
pub async fn call(
    context: CallContext<'_>,
    method: &Method,
    request: &Bytes,
) -> Result<UnaryResponse, Error> {
    // Bound only with a permit: in the queue, calls hold their requests only.
    let permit;
    let context = match context.permit {
        Some(_) => context,
        None => {
            permit = context
                .upstream
                .permit(context.client, context.deadline)
                .await?;
            CallContext {
                permit: Some(&permit),
                ..context
            }
        }
    };
    let dialect = context.dialect();
    let page = match &method.paging {
        Some(paging) => Some((paging, paging.page_request(request, dialect)?)),
        None => None,
    };
    let call = context.bind(method, request).await?;
    let (verb, effect) = (call.verb.clone(), call.effect());
    let first_call = method.merge_pages.as_ref().map(|_| call.clone());
    let reply = match send(context, method, request, call).await {
        Err(error) => match page {
            // A page without items ends the list.
            Some((paging, requested))
                if pager::is_no_page(&error)
                    && pager::is_behind_the_last(context, method, paging, requested, request)
                        .await? =>
            {
                return Ok(UnaryResponse {
                    decoded: Decoded {
                        message: Bytes::new(),
                        notes: Notes::default(),
                    },
                    headers: HeaderMap::new(),
                });
            }
            _ => return Err(error),
        },
        Ok(reply) => reply,
    };
    let mut decoded = context.decode(method, (&verb, effect), &reply).await?;
    if let Some((paging, requested)) = page {
        let following = paging.following(requested, &decoded.message, &paging.before(requested))?;
        decoded.message =
            match pager::is_repeated(context, method, request, &decoded, &following).await? {
                // The items are those of a page before: an empty page ends the list.
                true => Bytes::new(),
                false => {
                    let page = decoded.message;
                    let token = following.token.as_deref();
                    let length = page.len() + token.map_or(0, str::len);
                    context.copy(&page, length, || paging.with_token(page.clone(), token))?
                }
            };
    }
    if let Some(call) = first_call {
        decoded = merge_pages(context, method, &call, decoded).await?;
    }
    Ok(UnaryResponse {
        decoded,
        headers: reply.headers,
    })
}

/// Sends `call`, which is bound from `request`, in two steps where `method` has an action.
pub async fn send(
    context: CallContext<'_>,
    method: &Method,
    request: &Bytes,
    call: Call,
) -> Result<Reply, Error> {
    let Some(action) = &method.action else {
        return context.call(method, &call).await;
    };
    action::call(context, method, action, request, call).await
}

/// Reads the pages behind `first`, the response to `call`, and merges them into it,
/// where `method` has `merge_pages`.
pub async fn merge_pages(
    context: CallContext<'_>,
    method: &Method,
    call: &Call,
    first: Decoded,
) -> Result<Decoded, Error> {
    let Some(rule) = &method.merge_pages else {
        return Ok(first);
    };
    let memory = &context.client.memory;
    let Some(cursor) = MergeCursor::after_first(method, rule, call, &first, memory)? else {
        return Ok(first);
    };
    let mut pager = Pager::new(cursor, OnRepeat::Keep);
    while pager.next(context).await?.is_some() {}
    Ok(pager.into_cursor().into_merged())
}
