//! The families of APIs by name. Each module has one: its data, and its error mapping.
//!
//! A new family needs two lines here: `mod`, and its name in [`family`].

pub(crate) mod common;
pub(crate) mod error_body;
pub(crate) mod error_markers;
pub(crate) mod error_shapes;
pub(crate) mod error_text;
mod heat;
mod jp1ao;
mod servicestage;

use crate::upstream::family::Family;
pub(crate) use common::COMMON;

/// Returns the family of this name; a user's own family has the common error mapping.
pub fn family(name: &str) -> &'static Family {
    match name {
        "heat" => &heat::FAMILY,
        "servicestage" => &servicestage::FAMILY,
        "jp1ao" => &jp1ao::FAMILY,
        _ => &COMMON,
    }
}
