//! TODO
use crate::family::Family;

/// TODO
pub static FAMILY: Family = Family {
    name: "heat",
    ..crate::family::COMMON
};
