//! Poll loops, shared by all who watch the same thing with the same eyes, and
//! the streams they feed.
