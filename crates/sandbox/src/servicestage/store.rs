//! Storage of resources of one kind, and paging of lists.

use serde_json::{Value, json};

use super::body::{Object, text};
use super::errors::invalid;
use crate::message::{Request, Response};

/// Maximum length of a list without `limit` (docs/apis/servicestage.md, "Common
/// rules").
const MAX_LIST_LENGTH: usize = 1000;
/// Maximum of `limit` (docs/apis/servicestage.md, "Common rules").
const MAX_LIMIT: usize = 100;

/// A resource with an id.
pub trait Resource {
    fn id(&self) -> &str;
}

impl Resource for Object {
    fn id(&self) -> &str {
        text(self, "id")
    }
}

/// Resources in creation order, up to a maximum number.
pub struct Store<T> {
    resources: Vec<T>,
    /// Name of the resources in errors.
    what: &'static str,
    max: usize,
}

impl<T: Resource> Store<T> {
    pub fn new(what: &'static str, max: usize) -> Self {
        Self {
            resources: Vec::new(),
            what,
            max,
        }
    }

    pub fn get(&self, id: &str) -> Option<&T> {
        self.iter().find(|resource| resource.id() == id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.resources
            .iter_mut()
            .find(|resource| resource.id() == id)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.resources.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.resources.iter_mut()
    }

    /// Fails if the maximum number is reached. Called before anything is created.
    pub fn check_capacity(&self) -> Result<(), Response> {
        match self.resources.len() < self.max {
            true => Ok(()),
            false => Err(invalid(format!("There are too many {}.", self.what))),
        }
    }

    /// Adds a resource. Fails if the maximum number is reached.
    pub fn add(&mut self, resource: T) -> Result<(), Response> {
        self.check_capacity()?;
        self.resources.push(resource);
        Ok(())
    }

    /// Adds a resource that exists at the start.
    pub fn preload(&mut self, resource: T) {
        self.resources.push(resource);
    }

    pub fn remove(&mut self, id: &str) -> Option<T> {
        let at = self
            .resources
            .iter()
            .position(|resource| resource.id() == id)?;
        Some(self.resources.remove(at))
    }

    pub fn retain(&mut self, keep: impl FnMut(&mut T) -> bool) {
        self.resources.retain_mut(keep);
    }
}

/// Returns a page of `views`, which are in creation order, as `member`, together with
/// `count`. Query: `limit` 0 to 100 (1,000 without it), `offset`, `order_by`
/// `create_time` (default), `name` or `update_time`, `order` `desc` (default) or `asc`.
pub fn page(request: &Request, member: &str, mut views: Vec<Value>) -> Result<Response, Response> {
    let number = |name: &str, default: usize, max: usize| match request.parameter(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number <= max)
            .ok_or_else(|| invalid(format!("{name} must be a number from 0 to {max}."))),
    };
    let limit = number("limit", MAX_LIST_LENGTH, MAX_LIMIT)?;
    let offset = number("offset", 0, usize::try_from(i32::MAX).unwrap_or(usize::MAX))?;
    match request.parameter("order_by") {
        None | Some("create_time") => {}
        Some("update_time") => views.sort_by_key(|view| {
            // A component has it in its status.
            let own = view["update_time"].as_i64();
            own.or_else(|| view["status"]["update_time"].as_i64())
        }),
        Some("name") => {
            views.sort_by_cached_key(|view| view["name"].as_str().unwrap_or_default().to_owned());
        }
        Some(_) => {
            return Err(invalid(
                "order_by must be create_time, name or update_time.",
            ));
        }
    }
    match request.parameter("order") {
        None | Some("desc") => views.reverse(),
        Some("asc") => {}
        Some(_) => return Err(invalid("order must be desc or asc.")),
    }
    let count = views.len();
    let views: Vec<Value> = views.into_iter().skip(offset).take(limit).collect();
    Ok(Response::ok(json!({"count": count, member: views})))
}

/// Returns whether `value` contains the query's filter.
pub fn matches(request: &Request, filter: &str, value: &str) -> bool {
    request
        .parameter(filter)
        .is_none_or(|part| value.contains(part))
}
