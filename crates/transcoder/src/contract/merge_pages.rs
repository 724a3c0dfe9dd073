//! Lists that are read whole, although they come in pages among other things.

use bytes::Bytes;

use super::diagnostics::Diagnostics;
use super::view::View;
use super::{Decoded, Method};
use crate::Error;
use crate::api::drawbridge::v1::MergePages as Rule;
use crate::call::{Call, Idempotency};
use crate::json::Notes;
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, MessageId, Schema};

/// The most further pages of one list.
const MAX_PAGES: usize = 100;
/// The longest that a list may become, in bytes of protobuf: what many of them
/// take together is bounded by how many calls are answered at once.
const MAX_BYTES: usize = 16 << 20;

/// `MethodRules.merge_pages`, compiled.
#[derive(Debug)]
pub struct MergePages {
    /// The number of the response's list.
    items: u32,
    /// Its name in JSON, with `[`.
    member: Box<str>,
    /// The response's field that says how many items there are.
    total: FieldIndex,
    /// The query parameter that says how many to pass over, with its `=`.
    offset: Box<str>,
    /// The query parameters that say which page, each with its `=`.
    page: Vec<Box<str>>,
}

/// A list on its way to be whole.
pub struct MergedPages {
    message: Vec<u8>,
    notes: Notes,
    have: u64,
    total: u64,
    pages: usize,
}

impl MergePages {
    /// What the first page says. None: it is all there is, or all that is asked
    /// for.
    pub fn begin(
        &self,
        method: &Method,
        call: &Call,
        first: &Decoded,
    ) -> Result<Option<MergedPages>, Error> {
        let says_page = |pair: &str| self.page.iter().any(|name| pair.starts_with(&**name));
        if call.query.split('&').any(says_page) {
            return Ok(None);
        }
        let view =
            View::of(&method.schema, method.output, &first.message).map_err(Error::malformed)?;
        let total = match view.value(self.total) {
            Some(Value::Varint(total)) => u64::try_from(total as i64).unwrap_or(0),
            _ => 0,
        };
        let have = self.count(&first.message)?;
        Ok((have > 0 && have < total).then(|| MergedPages {
            message: first.message.to_vec(),
            notes: first.notes.clone(),
            have,
            total,
            pages: 0,
        }))
    }

    /// The call of the page behind those that are there.
    pub fn next(&self, call: &Call, merged: &MergedPages) -> Result<Call, Error> {
        if merged.pages == MAX_PAGES {
            return Err(Error::decode(
                "",
                format!("the list has more than {MAX_PAGES} pages: ask for single ones"),
            ));
        }
        let mut call = call.clone();
        if !call.query.is_empty() {
            call.query.push('&');
        }
        call.query.push_str(&self.offset);
        call.query.push_str(&merged.have.to_string());
        Ok(call)
    }

    /// Puts the items of a page behind those that are there. True: the list is
    /// whole; so it is also when a page brings nothing.
    pub fn add(&self, merged: &mut MergedPages, page: Decoded) -> Result<bool, Error> {
        let Decoded {
            message: page,
            notes,
        } = page;
        for field in wire::fields(&page) {
            if let (number, Value::Bytes(item)) = field.map_err(Error::malformed)?
                && number == self.items
            {
                wire::write_bytes(&mut merged.message, number, item);
            }
        }
        if merged.message.len() > MAX_BYTES {
            return Err(Error::decode(
                "",
                format!("the list has more than {MAX_BYTES} bytes: ask for single pages"),
            ));
        }
        let more = self.count(&page)?;
        let have = merged.have;
        let paths = notes.inexact.into_iter();
        merged.notes.add(paths.map(|path| self.moved(path, have)));
        merged.have += more;
        merged.pages += 1;
        Ok(more == 0 || merged.have >= merged.total)
    }

    /// A path into a page, as one into the whole list: `have` items are before it.
    fn moved(&self, path: String, have: u64) -> String {
        let item = path.strip_prefix(&*self.member);
        let item = item.and_then(|item| item.split_once(']'));
        match item.and_then(|(at, rest)| Some((at.parse::<u64>().ok()?, rest))) {
            Some((at, rest)) => format!("{}{}]{rest}", self.member, have.saturating_add(at)),
            None => path,
        }
    }

    fn count(&self, page: &Bytes) -> Result<u64, Error> {
        let mut count = 0;
        for field in wire::fields(page) {
            let (number, _) = field.map_err(Error::malformed)?;
            count += u64::from(number == self.items);
        }
        Ok(count)
    }
}

impl MergedPages {
    /// The response with the whole list.
    pub fn whole(self) -> Decoded {
        Decoded {
            message: self.message.into(),
            notes: self.notes,
        }
    }
}

/// Compiles the rule; every contradiction is reported.
pub(super) fn compile(
    rule: &Rule,
    method: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<MergePages> {
    let schema = &*method.schema;
    let is_list =
        |f: &Field| f.cardinality == Cardinality::Repeated && matches!(f.kind, Kind::Message(_));
    let is_count = |f: &Field| {
        f.is_single()
            && matches!(
                f.kind,
                Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
            )
    };
    if method.idempotency == Idempotency::NonIdempotent || method.action.is_some() {
        diagnostics.report_rule("merge_pages", "is for reads: say so by `idempotency_level`");
    }
    if method.response_body.is_some() {
        diagnostics.report_rule(
            "merge_pages",
            "the response must be the whole body: leave `response_body` out",
        );
    }
    let items = named(
        schema,
        method.output,
        "items",
        &rule.items,
        is_list,
        diagnostics,
    );
    let total = named(
        schema,
        method.output,
        "total",
        &rule.total,
        is_count,
        diagnostics,
    );
    let offset = named(
        schema,
        method.input,
        "offset",
        &rule.offset,
        is_count,
        diagnostics,
    );
    let size = match &*rule.size {
        "" => None,
        name => Some(named(
            schema,
            method.input,
            "size",
            name,
            Field::is_single,
            diagnostics,
        )?),
    };
    let mut page = Vec::new();
    for index in offset.into_iter().chain(size) {
        match method.binding.query_name(index) {
            Some(name) => page.push(format!("{name}=").into_boxed_str()),
            None => diagnostics.report_rule(
                "merge_pages",
                "what says which page must be a query parameter",
            ),
        }
    }
    let items = &schema.message(method.output).fields[usize::from(items?)];
    Some(MergePages {
        items: items.number,
        member: format!("{}[", items.wire_name).into(),
        total: total?,
        offset: page.first()?.clone(),
        page,
    })
}

/// The field of this name, if it is of the right kind.
fn named(
    schema: &Schema,
    id: MessageId,
    option: &str,
    name: &str,
    fits: impl Fn(&Field) -> bool,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<FieldIndex> {
    let message = schema.message(id);
    let found = message.field(name).filter(|(_, field)| fits(field));
    if found.is_none() {
        let problem = format!("{} has no field `{name}` that it could be", message.name);
        diagnostics.report_rule(&format!("merge_pages.{option}"), problem);
    }
    Some(found?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_page_become_those_of_the_list() {
        let gather = MergePages {
            items: 1,
            member: "tasks[".into(),
            total: 0,
            offset: "offset=".into(),
            page: Vec::new(),
        };
        for (path, want) in [
            ("tasks[2].x[1]", "tasks[22].x[1]"),
            ("job.n", "job.n"),
            ("tasks[x]", "tasks[x]"),
        ] {
            assert_eq!(gather.moved(path.to_owned(), 20), want);
        }
    }
}
