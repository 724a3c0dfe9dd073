//! What a family adds to its descriptors.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

/// Compares values of a request with definitions of the upstream: reads the
/// definitions as messages, the values by key, and the action's document. Returns
/// each key with its problem.
pub type Checker = fn(&[Bytes], &Map<String, Value>, &[u8]) -> Vec<(String, String)>;

/// Returns the HTTP status of an error body: the one that it names, else 500. Returns none
/// for a body that is not an error of the family. The body has no byte order mark and no
/// white space around it.
pub type ErrorStatus = fn(&[u8], Evidence<'_>) -> Option<u16>;

/// What is known of a body that may be an error.
#[derive(Clone, Copy)]
pub enum Evidence<'a> {
    /// It is not the requested resource, or only the members of a response that it does not
    /// declare: each sign of an error counts.
    NotTheResource,
    /// It can be the requested resource. It is an error only if it has the members of an
    /// error body and no others, and one that shows the error is none of those that the
    /// response declares.
    MayBeTheResource(&'a dyn Members),
}

/// The members that a response declares.
pub trait Members {
    /// Returns whether it declares this one.
    fn has(&self, name: &str) -> bool;
    /// Returns whether it declares one that the function accepts.
    fn any(&self, accepts: &dyn Fn(&str) -> bool) -> bool;
}

/// Members by name; of arbitrary JSON none.
impl<const N: usize> Members for [&str; N] {
    fn has(&self, name: &str) -> bool {
        self.contains(&name)
    }

    fn any(&self, accepts: &dyn Fn(&str) -> bool) -> bool {
        self.iter().any(|name| accepts(name))
    }
}

/// The rules of one family that descriptors cannot express.
#[derive(Clone, Copy, Debug, Default)]
pub struct FamilyRules {
    /// Reply headers that contain the upstream's request id, in order of preference.
    pub request_id_headers: &'static [&'static str],
    /// Checkers that `(drawbridge.v1.method).check` can name.
    pub checkers: &'static [(&'static str, Checker)],
    /// Recognizes error bodies of the family in replies with a success status.
    pub error_status: Option<ErrorStatus>,
}

impl FamilyRules {
    /// Returns the upstream's id of a request, from the reply's headers.
    pub fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        self.request_id_headers
            .iter()
            .find_map(|name| headers.get(*name)?.to_str().ok().map(str::to_owned))
    }
}

/// Returns the rules of the family of this name.
pub type Families = dyn Fn(&str) -> FamilyRules;
