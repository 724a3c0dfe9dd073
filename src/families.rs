//! The families by name: a new one needs a line here, beside its room.

pub(crate) mod common;
pub(crate) mod error_body;
mod heat;
mod jp1ao;
mod servicestage;

use crate::upstream::family::Family;
pub(crate) use common::COMMON;

/// The family of this name; a user's own family gets the common rules.
pub fn family(name: &str) -> &'static Family {
    match name {
        "heat" => &heat::FAMILY,
        "servicestage" => &servicestage::FAMILY,
        "jp1ao" => &jp1ao::FAMILY,
        _ => &COMMON,
    }
}
