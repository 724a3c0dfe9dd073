//! `pages`: a stream of the items of all pages of a list.

use std::sync::Arc;

use bytes::Bytes;

use super::Method;
use super::diagnostics::Diagnostics;
use super::paging::{PAGE_SIZE, PAGE_TOKEN, is_number, is_text, param, with_token};
use super::rpc_lookup::{RpcLookup, check_same_call};
use crate::Error;
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Kind};

/// Most items per page that a stream requests.
const MAX_PAGE_SIZE: u64 = 1_000;

/// A compiled `MethodRules.pages`.
#[derive(Debug)]
pub struct Pages {
    /// The rpc that lists one page.
    pub list: Arc<Method>,
    /// Field numbers in the request of the stream.
    size: u32,
    token: u32,
    /// Number of the field of the stream's messages that holds the item.
    item: u32,
    default_size: u32,
}

impl Pages {
    /// Returns the request of the first page. It always has a page size, of at most
    /// `MAX_PAGE_SIZE`.
    pub fn first(&self, request: &[u8]) -> Result<Bytes, Error> {
        let size = wire::last(request, self.size).map_err(Error::malformed)?;
        if let Some(Value::Varint(size)) = size
            && (size == 0 || size > i32::MAX as u64)
        {
            return Err(Error::Binding {
                field: PAGE_SIZE.into(),
                problem: "must be at least 1".into(),
            });
        }
        let page_size = match size {
            Some(Value::Varint(size)) if size <= MAX_PAGE_SIZE => {
                return Ok(Bytes::copy_from_slice(request));
            }
            Some(_) => MAX_PAGE_SIZE,
            None => u64::from(self.default_size).min(MAX_PAGE_SIZE),
        };
        let mut first = request.to_vec();
        // The last occurrence of a field wins.
        wire::write_uint(&mut first, self.size, page_size);
        Ok(first.into())
    }

    /// Returns the request of the page that starts at `token`, from that of any other
    /// page.
    pub fn at(&self, request: &[u8], token: &str) -> Bytes {
        with_token(request, self.token, token)
    }

    /// Encodes a message of the stream.
    pub fn message(&self, item: &[u8]) -> Bytes {
        let mut message = Vec::with_capacity(item.len() + 8);
        wire::write_bytes(&mut message, self.item, item);
        message.into()
    }
}

/// Compiles the `pages` of `method`.
pub(super) fn compile(
    list: &str,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Pages> {
    let Some(list) = rpcs.find(list).filter(|list| list.paging.is_some()) else {
        let problem = rpcs.left_out_or(list, || {
            format!("`{list}` is not a unary rpc of this service or package with `paging`")
        });
        diagnostics.report_rule("pages", problem);
        return None;
    };
    let paging = list.paging.as_ref()?;
    check_same_call(method, list, "pages", diagnostics);
    let schema = &*method.schema;
    let request = schema.message(method.input);
    let size = param(request, PAGE_SIZE, is_number, diagnostics);
    let token = param(request, PAGE_TOKEN, is_text, diagnostics);
    let response = schema.message(method.output);
    let item = match &response.fields[..] {
        [field]
            if field.kind == Kind::Message(paging.item)
                && field.cardinality == Cardinality::Explicit =>
        {
            Some(field.number)
        }
        _ => {
            let problem = format!(
                "{} must have one field, of the type {}",
                response.name,
                schema.message(paging.item).name
            );
            diagnostics.report_rule("pages", problem);
            None
        }
    };
    Some(Pages {
        list: list.clone(),
        size: size?.number,
        token: token?.number,
        item: item?,
        default_size: paging.default_size,
    })
}
