//! TODO
use crate::family::Family;

/// TODO
pub static FAMILY: Family = Family {
    name: "servicestage",
    ..crate::family::COMMON
};
