//! The families by name: a new one needs a line here, beside its room.

use crate::family::{COMMON, Family};
use crate::{heat, jp1ao, servicestage};

/// The family of this name; a user's own family gets the common rules.
pub fn family(name: &str) -> &'static Family {
    match name {
        "heat" => &heat::FAMILY,
        "servicestage" => &servicestage::FAMILY,
        "jp1ao" => &jp1ao::FAMILY,
        _ => &COMMON,
    }
}
