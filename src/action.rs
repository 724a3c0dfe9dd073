//! Two-step calls: a document is fetched, edited in place and posted.
