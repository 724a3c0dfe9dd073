//! `merge_pages`: fetches the further pages of a list and appends their items.

use std::hash::{DefaultHasher, Hash, Hasher};

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

/// Most further pages of one list.
const MAX_PAGES: usize = 100;
/// Largest list, in bytes of protobuf. The number of concurrent calls bounds what all
/// lists use together.
const MAX_BYTES: usize = 16 << 20;

/// A compiled `MethodRules.merge_pages`.
#[derive(Debug)]
pub struct MergePages {
    /// Number of the response's list field.
    items: u32,
    /// Its name in JSON, followed by `[`.
    member: Box<str>,
    /// The field of the response with the total number of items.
    total: FieldIndex,
    /// The query parameter with the number of items to skip, with its `=`.
    offset: Box<str>,
    /// The query parameters that select a page, each with its `=`.
    page: Vec<Box<str>>,
    /// The fields of the request with these parameters: number and name.
    fields: Vec<(u32, Box<str>)>,
}

/// A list with the pages fetched so far.
pub struct MergedPages {
    message: Vec<u8>,
    notes: Notes,
    have: u64,
    total: u64,
    pages: usize,
    /// A digest of the items of the last page.
    last: u64,
}

impl MergePages {
    /// Fails when the request selects a page by a negative number.
    pub(super) fn check(&self, request: &[u8]) -> Result<(), Error> {
        for (number, name) in &self.fields {
            let value = wire::last(request, *number).map_err(Error::malformed)?;
            if matches!(value, Some(Value::Varint(value)) if value > i64::MAX as u64) {
                return Err(Error::Binding {
                    field: name.to_string(),
                    problem: "must not be negative".into(),
                });
            }
        }
        Ok(())
    }

    /// Starts with the first page. None: the list is complete, or the client requests a
    /// single page.
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
        let total = self.total(&view).unwrap_or(0);
        let have = self.count(&first.message)?;
        if have == 0 && total > 0 {
            return Err(ends_early(have, total));
        }
        let last = self.digest(&first.message)?;
        Ok((have < total).then(|| MergedPages {
            message: first.message.to_vec(),
            notes: first.notes.clone(),
            have,
            total,
            pages: 0,
            last,
        }))
    }

    /// Returns the call of the next page.
    pub fn next(&self, call: &Call, merged: &MergedPages) -> Result<Call, Error> {
        if merged.pages == MAX_PAGES {
            return Err(Error::decode(
                "",
                format!("the list has more than {MAX_PAGES} pages: request single pages"),
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

    /// Returns the total of a response, unless that is unset.
    fn total(&self, response: &View<'_>) -> Option<u64> {
        match response.value(self.total) {
            Some(Value::Varint(total)) => u64::try_from(total as i64).ok(),
            _ => None,
        }
    }

    /// Appends the items of a page. Returns whether the list is complete, by the total of
    /// this page, or of one before where it has none: items may be added and deleted in
    /// between. A page without items before that is an error, as is one with the items of the
    /// page before: the API ignores the offset.
    pub fn add(
        &self,
        method: &Method,
        merged: &mut MergedPages,
        page: Decoded,
    ) -> Result<bool, Error> {
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
                format!("the list has more than {MAX_BYTES} bytes: request single pages"),
            ));
        }
        let view = View::of(&method.schema, method.output, &page).map_err(Error::malformed)?;
        merged.total = self.total(&view).unwrap_or(merged.total);
        let more = self.count(&page)?;
        let digest = self.digest(&page)?;
        if more > 0 && std::mem::replace(&mut merged.last, digest) == digest {
            let problem = "a page repeats the one before: the API ignores the offset";
            return Err(Error::not_the_resource(problem));
        }
        let have = merged.have;
        let paths = notes.inexact.into_iter();
        merged
            .notes
            .add(paths.map(|path| self.path_in_list(path, have)));
        merged.have += more;
        merged.pages += 1;
        match merged.have >= merged.total {
            true => Ok(true),
            false if more == 0 => Err(ends_early(merged.have, merged.total)),
            false => Ok(false),
        }
    }

    /// Converts a path in a page into the path in the complete list, which had `have`
    /// items before.
    fn path_in_list(&self, path: String, have: u64) -> String {
        let item = path.strip_prefix(&*self.member);
        let item = item.and_then(|item| item.split_once(']'));
        match item.and_then(|(at, rest)| Some((at.parse::<u64>().ok()?, rest))) {
            Some((at, rest)) => format!("{}{}]{rest}", self.member, have.saturating_add(at)),
            None => path,
        }
    }

    /// Returns a digest of the items of a page.
    fn digest(&self, page: &Bytes) -> Result<u64, Error> {
        let mut hasher = DefaultHasher::new();
        wire::all(page, self.items)
            .map_err(Error::malformed)?
            .hash(&mut hasher);
        Ok(hasher.finish())
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
    /// Returns the response with the complete list.
    pub fn finish(self) -> Decoded {
        Decoded {
            message: self.message.into(),
            notes: self.notes,
        }
    }
}

/// Returns the error of a list that ends before its total: the rest was not read, and must
/// not seem to be deleted.
pub(super) fn ends_early(have: u64, total: u64) -> Error {
    let problem = format!("the list ends after {have} of {total} items");
    Error::not_the_resource(problem)
}

/// Compiles the `merge_pages` of `method`.
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
        diagnostics.report_rule(
            "merge_pages",
            "is for reads: set `idempotency_level = \
                                                NO_SIDE_EFFECTS`",
        );
    }
    if method.response_body.is_some() {
        diagnostics.report_rule(
            "merge_pages",
            "the response must be the complete body: remove `response_body`",
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
    let mut fields = Vec::new();
    for index in offset.into_iter().chain(size) {
        let field = &schema.message(method.input).fields[usize::from(index)];
        fields.push((field.number, field.name.clone()));
        match method.binding.query_name(index) {
            Some(name) => page.push(format!("{name}=").into_boxed_str()),
            None => diagnostics.report_rule(
                "merge_pages",
                "`offset` and `size` must name query parameters",
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
        fields,
    })
}

/// Finds a field of this name and of a suitable type, or reports that there is none.
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
        let problem = format!("{} has no field `{name}` of a suitable type", message.name);
        diagnostics.report_rule(&format!("merge_pages.{option}"), problem);
    }
    Some(found?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_page_become_paths_in_the_list() {
        let gather = MergePages {
            items: 1,
            member: "tasks[".into(),
            total: 0,
            offset: "offset=".into(),
            page: Vec::new(),
            fields: Vec::new(),
        };
        for (path, want) in [
            ("tasks[2].x[1]", "tasks[22].x[1]"),
            ("job.n", "job.n"),
            ("tasks[x]", "tasks[x]"),
        ] {
            assert_eq!(gather.path_in_list(path.to_owned(), 20), want);
        }
    }
}
