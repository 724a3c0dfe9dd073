//! A unary rpc from its request to its response: bind, call, decode. The dispatcher
//! calls it for clients, a watch for the call that it begins with.

use bytes::Bytes;
use http::HeaderMap;

use super::action;
use super::call_context::CallContext;
use super::pager::{MergeCursor, OnRepeat, Pager};
use crate::error::Error;
use drawbridge_transcoder::call::{Call, Reply, Room};
use drawbridge_transcoder::contract::{Decoded, Method};

/// What a call was answered.
#[derive(Debug)]
pub struct Answered {
    /// The response message.
    pub decoded: Decoded,
    /// The headers of the reply that it was read from.
    pub headers: HeaderMap,
    /// What a long answer takes up until it is sent.
    pub room: Room,
}

/// Makes the call of `method`.
pub async fn call(
    context: CallContext<'_>,
    method: &Method,
    request: &Bytes,
) -> Result<Answered, Error> {
    let dialect = context.dialect();
    let page = match &method.paging {
        Some(paging) => Some((paging, paging.asked(request, dialect)?)),
        None => None,
    };
    let call = method.bind(request, dialect)?;
    let again = method.merge_pages.as_ref().map(|_| call.clone());
    let reply = reply(context, method, request, call).await?;
    let mut decoded = method.decode(&reply)?;
    if let Some((paging, asked)) = page {
        decoded.message = paging.with_next(asked, decoded.message)?;
    }
    if let Some(call) = again {
        decoded = whole(context, method, &call, decoded).await?;
    }
    Ok(Answered {
        decoded,
        headers: reply.headers,
        room: reply.room,
    })
}

/// The reply to `call`, which is bound from `request`, in one step or two.
pub async fn reply(
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

/// The response with its whole list, where `method` gathers one; `first` is what
/// `call` was answered.
pub async fn whole(
    context: CallContext<'_>,
    method: &Method,
    call: &Call,
    first: Decoded,
) -> Result<Decoded, Error> {
    let Some(rule) = &method.merge_pages else {
        return Ok(first);
    };
    let Some(cursor) = MergeCursor::after_first(method, rule, call, &first)? else {
        return Ok(first);
    };
    let mut pager = Pager::new(cursor, OnRepeat::Keep);
    while pager.next(context).await?.is_some() {}
    Ok(pager.into_cursor().into_merged())
}
