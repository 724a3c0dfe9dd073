//! TODO
use crate::family::Family;

/// TODO
pub static FAMILY: Family = Family {
    name: "jp1ao",
    ..crate::family::COMMON
};
