//! `pages`: a stream of the items of all pages of a list.

use std::sync::Arc;

use bytes::Bytes;

use super::Method;
use super::diagnostics::Diagnostics;
use super::paging::{SIZE, TOKEN, is_number, is_text, param, with_token};
use super::rpc_lookup::{RpcLookup, check_same_call};
use crate::Error;
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Kind};

/// The most items a stream of pages asks for at a time.
const MOST: u64 = 1_000;

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

impl Pages {
    /// The request of the first page: it has a size whatever the caller says, and
    /// one of at most [`MOST`].
    pub fn first(&self, request: &[u8]) -> Result<Bytes, Error> {
        let size = wire::last(request, self.size).map_err(Error::malformed)?;
        if let Some(Value::Varint(size)) = size
            && (size == 0 || size > i32::MAX as u64)
        {
            return Err(Error::Binding {
                field: SIZE.into(),
                problem: "must be at least 1".into(),
            });
        }
        let asked = match size {
            Some(Value::Varint(size)) if size <= MOST => {
                return Ok(Bytes::copy_from_slice(request));
            }
            Some(_) => MOST,
            None => u64::from(self.default_size).min(MOST),
        };
        let mut first = request.to_vec();
        // The last value of a field is the one that counts.
        wire::write_uint(&mut first, self.size, asked);
        Ok(first.into())
    }

    /// The request of the page that starts at `token`, after that of any other.
    pub fn at(&self, request: &[u8], token: &str) -> Bytes {
        with_token(request, self.token, token)
    }

    /// A message of the stream.
    pub fn message(&self, item: &[u8]) -> Bytes {
        let mut message = Vec::with_capacity(item.len() + 8);
        wire::write_bytes(&mut message, self.item, item);
        message.into()
    }
}

/// Compiles the `pages` of `method`, whose service has `methods`.
pub(super) fn compile(
    list: &str,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Pages> {
    let Some(list) = rpcs.find(list).filter(|list| list.paging.is_some()) else {
        let problem =
            format!("`{list}` is not a unary rpc of this service or package with `paging`");
        diagnostics.report_rule("pages", problem);
        return None;
    };
    let paging = list.paging.as_ref()?;
    check_same_call(method, list, "pages", diagnostics);
    let schema = &*method.schema;
    let request = schema.message(method.input);
    let size = param(request, SIZE, is_number, diagnostics);
    let token = param(request, TOKEN, is_text, diagnostics);
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
