//! A unary rpc from its request to its response: bind, call, decode. One
//! sentence for all who make one: the gateway for its callers, watches for the
//! call that they begin with.

use bytes::Bytes;
use http::HeaderMap;

use crate::deadline::Deadline;
use crate::downstream::Caller;
use crate::engine::action;
use crate::error::Error;
use crate::upstream::{Operation, Upstream};
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

/// Carries out `method` at `upstream` as `caller`.
pub async fn call(
    upstream: &Upstream,
    method: &Method,
    request: &Bytes,
    caller: &Caller,
    deadline: Deadline,
) -> Result<Answered, Error> {
    let dialect = &upstream.settings.dialect;
    let page = match &method.paging {
        Some(paging) => Some((paging, paging.asked(request, dialect)?)),
        None => None,
    };
    let call = method.bind(request, dialect)?;
    let again = method.merge_pages.as_ref().map(|_| call.clone());
    let reply = reply(upstream, method, request, call, caller, deadline).await?;
    let mut decoded = method.decode(&reply)?;
    if let Some((paging, asked)) = page {
        decoded.message = paging.with_next(asked, decoded.message)?;
    }
    if let Some(call) = again {
        decoded = whole(upstream, method, &call, caller, deadline, decoded).await?;
    }
    Ok(Answered {
        decoded,
        headers: reply.headers,
        room: reply.room,
    })
}

/// The reply to `call`, which is bound from `request`, in one step or two.
pub async fn reply(
    upstream: &Upstream,
    method: &Method,
    request: &Bytes,
    call: Call,
    caller: &Caller,
    deadline: Deadline,
) -> Result<Reply, Error> {
    let Some(action) = &method.action else {
        return (upstream.call(Operation::of(method), &call, caller, deadline)).await;
    };
    let way = action::Way {
        upstream,
        caller,
        deadline,
    };
    action::call(way, method, action, request, call).await
}

/// The response with its whole list, where `method` gathers one; `first` is what
/// `call` was answered.
pub async fn whole(
    upstream: &Upstream,
    method: &Method,
    call: &Call,
    caller: &Caller,
    deadline: Deadline,
    first: Decoded,
) -> Result<Decoded, Error> {
    let Some(gather) = &method.merge_pages else {
        return Ok(first);
    };
    let Some(mut gathering) = gather.begin(method, call, &first)? else {
        return Ok(first);
    };
    loop {
        let next = gather.next(call, &gathering)?;
        let reply = (upstream.call(Operation::of(method), &next, caller, deadline)).await?;
        if gather.add(&mut gathering, method.decode(&reply)?)? {
            return Ok(gathering.whole());
        }
    }
}
