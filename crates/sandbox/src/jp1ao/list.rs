//! Parameters of all list functions, and the envelope (docs/apis/jp1ao.md, "Query
//! parameters" and "List envelope").

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::hql::{self, Filter};
use super::time_format;
use super::{Call, HandlerResult, ok};
use crate::message::Response;

/// Default page size; that of the sister API.
const PAGE_SIZE: usize = 100;
/// Maximum page size, offset and page number.
const MAX_PAGING_VALUE: usize = 1_000_000;
/// Parameters of every list. `HQL::limit` is the likely name of the partner of
/// `HQL::offset`, which was truncated in every source.
const COMMON: [&str; 8] = [
    "alt",
    "HQL::filter",
    "HQL::fields",
    "HQL::sortBy",
    "HQL::offset",
    "HQL::limit",
    "page",
    "pageSize",
];

/// Type of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Long,
    Text,
    Enum,
    Time,
    Bool,
    /// Comma lists, URLs and all other members that are not marked as filterable.
    Other,
}

/// Members of a resource, for lists.
pub struct ListSchema {
    /// Members in the order of responses.
    pub members: &'static [(&'static str, Kind)],
    /// Members that `q` searches. If there are any, `q` and `tags` are accepted.
    pub searched: &'static [&'static str],
    /// Members that are also query parameters, compared for equality.
    pub equal: &'static [&'static str],
}

impl ListSchema {
    fn kind(&self, name: &str) -> Option<(&'static str, Kind)> {
        self.members
            .iter()
            .find(|(member, _)| *member == name)
            .copied()
    }

    /// Returns a member that filters and orders may use.
    pub fn comparable(&self, name: &str) -> Result<(&'static str, Kind), String> {
        match self.kind(name) {
            Some((_, Kind::Other)) => Err(format!("{name} cannot be filtered by")),
            Some(found) => Ok(found),
            None => Err(format!("there is no member {name}")),
        }
    }
}

/// Rejects a body with unparsable times, such as those with an offset without a colon
/// (V12 2.2.12).
pub fn times(body: &Map<String, Value>, shape: &ListSchema) -> Result<(), ApiError> {
    let mut times = shape.members.iter().filter(|(_, kind)| *kind == Kind::Time);
    let wrong = times.find(|(name, _)| match body.get(*name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty() && time_format::parse(text, false).is_none(),
        Some(_) => true,
    });
    match wrong {
        Some((name, _)) => Err(ApiError::body(format!("{name} is no time"))),
        None => Ok(()),
    }
}

/// Returns the matching part of a list. `also` are parameters that were handled before.
pub fn handle(
    call: &Call<'_>,
    items: Vec<Value>,
    shape: &ListSchema,
    also: &[&str],
) -> HandlerResult {
    let found = matching(call, items, shape, also)?;
    let fields = call
        .request
        .parameter("HQL::fields")
        .map(|text| fields(text, shape))
        .transpose()
        .map_err(|error| ApiError::Query(format!("HQL::fields: {error}")))?;
    let found = found.into_iter().map(|item| match &fields {
        Some(fields) => only(item, fields),
        None => item,
    });
    page(call, found.collect())
}

/// Returns the requested page.
pub fn page(call: &Call<'_>, items: Vec<Value>) -> HandlerResult {
    let place = Place::read(call)?;
    let count = items.len();
    let data = items.into_iter().skip(place.skip).take(place.take);
    Ok(wrapped(data.collect(), count, place.pagination(count)))
}

/// Filters and sorts the items according to the query.
pub fn matching(
    call: &Call<'_>,
    items: Vec<Value>,
    shape: &ListSchema,
    also: &[&str],
) -> Result<Vec<Value>, ApiError> {
    let searched: &[&str] = if shape.searched.is_empty() {
        &[]
    } else {
        &["q", "tags"]
    };
    call.reject_other_parameters(&[&COMMON, searched, shape.equal, also])?;
    let bad = |name: &str, error: String| ApiError::Query(format!("{name}: {error}"));

    let mut tests = Vec::new();
    for name in shape.equal {
        if let Some(given) = call.request.parameter(name) {
            let wanted = equal(shape, name, given);
            tests.push((
                *name,
                wanted.ok_or_else(|| ApiError::Query((*name).to_owned()))?,
            ));
        }
    }
    let words: Vec<String> = match call.request.parameter("q") {
        Some(text) => text.split_whitespace().map(str::to_lowercase).collect(),
        None => Vec::new(),
    };
    let tags: Vec<&str> = csv(call.request.parameter("tags").unwrap_or_default());
    let filter = call
        .request
        .parameter("HQL::filter")
        .map(|text| Filter::read(text, shape))
        .transpose()
        .map_err(|error| bad("HQL::filter", error))?;
    let order = match call.request.parameter("HQL::sortBy") {
        Some(text) => hql::order(text, shape).map_err(|error| bad("HQL::sortBy", error))?,
        None => Vec::new(),
    };
    let mut found: Vec<Value> = items
        .into_iter()
        .filter(|item| {
            tests
                .iter()
                .all(|(name, wanted)| same(&item[*name], wanted))
        })
        .filter(|item| words.iter().all(|word| holds(item, shape.searched, word)))
        .filter(|item| tagged(item, &tags))
        .filter(|item| filter.as_ref().is_none_or(|filter| filter.holds(item)))
        .collect();
    found.sort_by(|a, b| {
        let orderings = order.iter().map(|by| by.compare(a, b));
        orderings.fold(Ordering::Equal, Ordering::then)
    });
    Ok(found)
}

/// Builds the envelope. `count` is the number of all matches, on every page.
fn wrapped(data: Vec<Value>, count: usize, pagination: Option<Value>) -> Response {
    let mut body = json!({"data": data, "count": count});
    if let Some(pagination) = pagination {
        body["pagination"] = pagination;
    }
    ok(&body)
}

/// Returns a short list that accepts no parameters.
pub fn unpaged(call: &Call<'_>, data: Vec<Value>) -> HandlerResult {
    call.reject_other_parameters(&[&["alt"]])?;
    let count = data.len();
    Ok(wrapped(data, count, None))
}

/// Page of a list.
struct Place {
    skip: usize,
    take: usize,
    page: Option<usize>,
}

impl Place {
    /// Page and page size take precedence over offset and limit, as in the sister API.
    fn read(call: &Call<'_>) -> Result<Self, ApiError> {
        let number = |name: &str, least: usize| match call.request.parameter(name) {
            None => Ok(None),
            Some(text) => match text.parse::<usize>() {
                Ok(number) if (least..=MAX_PAGING_VALUE).contains(&number) => Ok(Some(number)),
                _ => Err(ApiError::Query(name.to_owned())),
            },
        };
        let (page, size) = (number("page", 1)?, number("pageSize", 1)?);
        let (offset, limit) = (number("HQL::offset", 0)?, number("HQL::limit", 1)?);
        if page.is_none() && size.is_none() && (offset.is_some() || limit.is_some()) {
            return Ok(Self {
                skip: offset.unwrap_or(0),
                take: limit.unwrap_or(PAGE_SIZE),
                page: None,
            });
        }
        let (page, take) = (page.unwrap_or(1), size.unwrap_or(PAGE_SIZE));
        Ok(Self {
            skip: (page - 1) * take,
            take,
            page: Some(page),
        })
    }

    fn pagination(&self, count: usize) -> Option<Value> {
        let page = self.page?;
        Some(json!({"page": page, "pageSize": self.take, "numPages": count.div_ceil(self.take)}))
    }
}

fn fields<'a>(text: &'a str, shape: &ListSchema) -> Result<Vec<&'a str>, String> {
    let fields = csv(text);
    match fields.iter().find(|name| shape.kind(name).is_none()) {
        Some(unknown) => Err(format!("there is no member {unknown}")),
        None => Ok(fields),
    }
}

fn only(item: Value, fields: &[&str]) -> Value {
    let Value::Object(members) = item else {
        return item;
    };
    let kept = members
        .into_iter()
        .filter(|(name, _)| fields.contains(&name.as_str()));
    Value::Object(kept.collect::<Map<_, _>>())
}

/// Converts a query parameter to the member's type.
fn equal(shape: &ListSchema, name: &str, given: &str) -> Option<Value> {
    match shape.kind(name)?.1 {
        Kind::Long => given.parse::<u64>().ok().map(Value::from),
        Kind::Bool => given.parse::<bool>().ok().map(Value::from),
        _ => Some(given.into()),
    }
}

/// Strings are compared case-insensitively (V12 2.4.1).
fn same(value: &Value, wanted: &Value) -> bool {
    match (value.as_str(), wanted.as_str()) {
        (Some(value), Some(wanted)) => value.to_lowercase() == wanted.to_lowercase(),
        _ => value == wanted,
    }
}

fn holds(item: &Value, searched: &[&str], word: &str) -> bool {
    searched
        .iter()
        .filter_map(|name| item[*name].as_str())
        .any(|text| text.to_lowercase().contains(word))
}

fn tagged(item: &Value, tags: &[&str]) -> bool {
    let present = csv(item["tags"].as_str().unwrap_or_default());
    tags.iter().all(|tag| present.contains(tag))
}

/// Splits a comma list and trims the parts; an empty text has none.
pub fn csv(text: &str) -> Vec<&str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}
