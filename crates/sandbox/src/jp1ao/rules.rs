//! What JP1/AO does this way or that: by version, or as one manual page prints it
//! against another.

/// How the sandbox's JP1/AO behaves where only one of several ways can be had at
/// a time. The default is what version 12 prints in its examples.
///
/// What does not exclude anything is always there: a 303 with HTML for the
/// deletion of a task, 204 with a JSON content type, a template of
/// `rerunStepStart` that calls itself `rerunStart`, times that are null or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jp1aoRules {
    /// The version of the product.
    pub version: Jp1aoVersion,
    /// Offsets without a colon, `+0900`, which JP1/AO itself does not take back
    /// (2.2.12). Default: with one.
    pub compact_offsets: bool,
    /// The envelope as the schemas print it: `instanceId`, `affectedResources`
    /// with objects, `resultType` (seed 5). Default: as the examples do.
    pub schema_envelope: bool,
    /// What the links look like. No client may follow them.
    pub links: Jp1aoLinks,
    /// `parameters` as a list within a list: `[Schedule, [PropertyValue, ...]]`.
    /// Which of both is real was in no source. Default: flat.
    pub nested_parameters: bool,
    /// `reset` answers with an envelope. Default: with the action document (2.5.9).
    pub reset_envelope: bool,
    /// What the envelope of `submit` names as affected.
    pub submitted: Jp1aoSubmitted,
}

/// A version of JP1/AO, by what its API can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jp1aoVersion {
    /// 10-50: 35 functions; a submit answers 201, empty `parameters` are null.
    V10,
    /// 11-00 to 11-50: as 12, but `applyTemplate` has a path of its own.
    V11,
    /// 12-60, and as far as was seen 13.
    #[default]
    V12,
}

/// What links look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jp1aoLinks {
    /// Another host, and in documents a leading space, as in the templates of the
    /// manuals.
    #[default]
    Spaced,
    /// Another host, without the space: the lengths of the examples come out.
    Plain,
    /// No port after the colon: `http://host:/...`.
    Portless,
}

/// What an envelope names after a submit; no source says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jp1aoSubmitted {
    /// The task, then the schedule.
    #[default]
    TaskAndSchedule,
    /// The task alone.
    Task,
    /// The schedule alone: the task is found by it.
    Schedule,
}
