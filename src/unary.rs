//! A unary rpc from its request to its response: bind, call, decode. One
//! sentence for all who make one: the gateway for its callers, watches for the
//! call that they begin with.

use bytes::Bytes;
use http::HeaderMap;

use crate::action;
use crate::contract::{Decoded, Method};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::rest::Caller;
use crate::upstream::{Operation, Upstream};

/// Carries out `method` at `upstream` as `caller`: the response message, and the
/// headers of the reply it was read from.
pub async fn call(
    upstream: &Upstream,
    method: &Method,
    request: &Bytes,
    caller: &Caller,
    deadline: Deadline,
) -> Result<(Decoded, HeaderMap), Error> {
    let dialect = &upstream.settings.dialect;
    let page = match &method.paging {
        Some(paging) => Some((paging, paging.asked(request, dialect)?)),
        None => None,
    };
    let call = method.bind(request, dialect)?;
    let operation = Operation::of(method);
    let reply = match &method.action {
        None => upstream.call(operation, &call, caller, deadline).await?,
        Some(action) => {
            let way = action::Way {
                upstream,
                caller,
                deadline,
            };
            action::call(way, method, action, request, call).await?
        }
    };
    let mut decoded = method.decode(&reply)?;
    if let Some((paging, asked)) = page {
        decoded.message = paging.with_next(asked, decoded.message)?;
    }
    // A long message takes up its reply's room until it is sent.
    decoded.message = reply.room.keep(decoded.message);
    Ok((decoded, reply.headers))
}
