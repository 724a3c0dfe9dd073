//! Things of one kind, and how lists of them are paged.

use serde_json::{Value, json};

use super::body::{Object, text};
use super::refusal::invalid;
use crate::plain::{Answer, Ask};

/// More than this is never answered in one list (section 1).
const MAX_LIST: usize = 1000;
/// The greatest page (section 1).
const MAX_LIMIT: usize = 100;

/// What can be on a shelf.
pub trait Thing {
    fn id(&self) -> &str;
}

impl Thing for Object {
    fn id(&self) -> &str {
        text(self, "id")
    }
}

/// Things in the order of their making, as many as fit.
pub struct Shelf<T> {
    things: Vec<T>,
    /// What they are, for the refusal when there are too many.
    what: &'static str,
    max: usize,
}

impl<T: Thing> Shelf<T> {
    pub fn new(what: &'static str, max: usize) -> Self {
        Self {
            things: Vec::new(),
            what,
            max,
        }
    }

    pub fn get(&self, id: &str) -> Option<&T> {
        self.iter().find(|thing| thing.id() == id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.things.iter_mut().find(|thing| thing.id() == id)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.things.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.things.iter_mut()
    }

    /// Refuses before anything is made, where there is no room for it.
    pub fn room(&self) -> Result<(), Answer> {
        match self.things.len() < self.max {
            true => Ok(()),
            false => Err(invalid(format!("There are too many {}.", self.what))),
        }
    }

    /// Adds one. Fails when there are too many.
    pub fn add(&mut self, thing: T) -> Result<(), Answer> {
        self.room()?;
        self.things.push(thing);
        Ok(())
    }

    /// Adds what the sandbox starts with.
    pub fn preload(&mut self, thing: T) {
        self.things.push(thing);
    }

    pub fn remove(&mut self, id: &str) -> Option<T> {
        let at = self.things.iter().position(|thing| thing.id() == id)?;
        Some(self.things.remove(at))
    }

    pub fn retain(&mut self, keep: impl FnMut(&mut T) -> bool) {
        self.things.retain_mut(keep);
    }
}

/// A page of `views`, which come in the order of their making, as `member` beside
/// `count`. Query: `limit` 0 to 100 (without it 1,000), `offset`, `order_by`
/// `create_time` (default), `name` or `update_time`, `order` `desc` (default) or
/// `asc`.
pub fn page(ask: &Ask, member: &str, mut views: Vec<Value>) -> Result<Answer, Answer> {
    let number = |name: &str, default: usize, max: usize| match ask.parameter(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number <= max)
            .ok_or_else(|| invalid(format!("{name} must be a number from 0 to {max}."))),
    };
    let limit = number("limit", MAX_LIST, MAX_LIMIT)?;
    let offset = number("offset", 0, usize::try_from(i32::MAX).unwrap_or(usize::MAX))?;
    match ask.parameter("order_by") {
        None | Some("create_time") => {}
        Some("update_time") => views.sort_by_key(|view| {
            // A component's is in its status.
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
    match ask.parameter("order") {
        None | Some("desc") => views.reverse(),
        Some("asc") => {}
        Some(_) => return Err(invalid("order must be desc or asc.")),
    }
    let count = views.len();
    let views: Vec<Value> = views.into_iter().skip(offset).take(limit).collect();
    Ok(Answer::ok(json!({"count": count, member: views})))
}

/// Whether a filter of the query lets `value` through: a part of it is enough.
pub fn matches(ask: &Ask, filter: &str, value: &str) -> bool {
    ask.parameter(filter)
        .is_none_or(|part| value.contains(part))
}
