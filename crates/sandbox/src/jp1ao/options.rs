//! Variants of JP1/AO: its versions, and contradictions between manual pages.

/// Selects among the behaviours that exclude each other. The default is that of the
/// examples of version 12.
///
/// Oddities that do not exclude anything are always present: a 303 with HTML for the
/// deletion of a task, 204 with a JSON content type, a `rerunStepStart` document named
/// `rerunStart`, times that are null or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jp1aoOptions {
    /// Version of the product.
    pub version: Jp1aoVersion,
    /// Formats offsets without a colon, `+0900`, which JP1/AO itself does not parse
    /// (V12 2.2.12). Default: false.
    pub compact_offsets: bool,
    /// Formats the envelope as the schemas do: `instanceId`, `affectedResources` with
    /// objects, `resultType` (`tests/seeds/5-jp1ao-service-release.json`). Default: as
    /// in the examples.
    pub schema_envelope: bool,
    /// Form of the links. Clients must not follow any.
    pub links: Jp1aoLinks,
    /// Nests `parameters` in a second list: `[Schedule, [PropertyValue, ...]]`. No
    /// source shows the real form. Default: flat.
    pub nested_parameters: bool,
    /// Whether `reset` returns an envelope. Default: the action document (V12 2.5.9).
    pub reset_envelope: bool,
    /// Affected resources in the envelope of `submit`.
    pub submitted: Jp1aoSubmitted,
}

/// A version of JP1/AO, by the functions of its API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jp1aoVersion {
    /// 10-50: 35 functions; a submit returns 201, empty `parameters` are null.
    V10,
    /// 11-00 to 11-50: as 12, but `applyTemplate` has a path of its own.
    V11,
    /// 12-60; 13 as far as its manual was available.
    #[default]
    V12,
}

/// Form of links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jp1aoLinks {
    /// Another host, and in documents a leading space, as in the manuals.
    #[default]
    Spaced,
    /// Another host, without the space: yields the Content-Length of the examples.
    Plain,
    /// No port after the colon: `http://host:/...`.
    Portless,
}

/// Affected resources of a submit; undocumented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jp1aoSubmitted {
    /// The task, then the schedule.
    #[default]
    TaskAndSchedule,
    /// Only the task.
    Task,
    /// Only the schedule, by which the client finds the task.
    Schedule,
}
