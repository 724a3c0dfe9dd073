//! Distinguishes a file from an error or a web page that has a success status.

use http::header::CONTENT_DISPOSITION;
use http::{HeaderValue, StatusCode};

use super::Download;
use crate::Error;
use crate::call::{Reply, without_mark};
use crate::contract::{Method, page};
use crate::family::Evidence;

/// Limit of the part of a file that is read before it is passed on. Error bodies are shorter.
pub const MAX_START_BYTES: usize = 64 << 10;

/// What a response is by its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The file.
    File,
    /// A web page that the rpc does not request.
    Page,
    /// An error by its media type.
    Problem,
    /// JSON that is the file, unless all of it is an error.
    RequestedJson,
    /// JSON in place of the file: each sign of an error counts.
    OtherJson,
}

impl Download {
    /// Returns whether the start of the body must be read to decide what the response is.
    pub fn needs_start(&self, reply: &Reply) -> bool {
        !matches!(self.kind(reply), Kind::File | Kind::Page)
    }

    fn kind(&self, reply: &Reply) -> Kind {
        let media_type = reply.media_type();
        if page::is_problem(reply) && !self.names(media_type) {
            return Kind::Problem;
        }
        // The server names the file: it is one, whatever it contains.
        if reply.headers.contains_key(CONTENT_DISPOSITION) {
            return Kind::File;
        }
        let is_requested = || self.names(media_type) || self.has_range_of(media_type);
        if page::is_html_type(reply) {
            return match is_requested() {
                true => Kind::File,
                false => Kind::Page,
            };
        }
        // Of other types the start is not waited for: the file may be an endless log.
        match page::is_json_type(reply) {
            false => Kind::File,
            true if is_requested() || self.names("application/octet-stream") => Kind::RequestedJson,
            true => Kind::OtherJson,
        }
    }

    /// Returns whether `Accept` names the media type.
    fn names(&self, media_type: &str) -> bool {
        ranges(&self.accept).any(|range| range.eq_ignore_ascii_case(media_type))
    }

    /// Returns whether `Accept` has a wildcard for the media type.
    fn has_range_of(&self, media_type: &str) -> bool {
        ranges(&self.accept).any(|range| {
            let kind = range.strip_suffix("/*");
            kind.is_some_and(|kind| {
                let of_type = media_type.split('/').next().unwrap_or_default();
                kind == "*" || kind.eq_ignore_ascii_case(of_type)
            })
        })
    }
}

impl Method {
    /// Fails if the response to a download is not the file. The reply has the start of the
    /// body where [`Download::needs_start`].
    pub fn check_file(&self, reply: &Reply) -> Result<(), Error> {
        let Some(download) = &self.download else {
            return Ok(());
        };
        if reply.status == StatusCode::PARTIAL_CONTENT {
            // No call requests a range.
            let problem = "expected the complete file, found a part of it (HTTP 206)";
            return Err(self.of_reply(Error::not_the_resource(problem), reply));
        }
        let may_be = Evidence::MayBeTheResource(&[]);
        let status = match download.kind(reply) {
            Kind::File => None,
            Kind::Page => {
                let problem = format!(
                    "expected a file ({}), found {}: check the upstream's endpoint",
                    download.accept.to_str().unwrap_or("?"),
                    reply.media_type(),
                );
                return Err(self.of_reply(Error::not_the_resource(problem), reply));
            }
            Kind::Problem => {
                let status = self.error_status(reply.text(), Evidence::NotTheResource);
                Some(status.unwrap_or(500))
            }
            Kind::RequestedJson => self.error_status(reply.text(), may_be),
            // A list is the file.
            Kind::OtherJson if reply.text().first() == Some(&b'[') => None,
            Kind::OtherJson => self.error_status(reply.text(), Evidence::NotTheResource),
        };
        match status {
            None => Ok(()),
            Some(status) => Err(self.of_reply(
                Error::ErrorBody {
                    status,
                    missing: String::new(),
                    request_id: None,
                },
                reply,
            )),
        }
    }
}

/// Finds the end of the JSON object with which a body may begin.
#[derive(Debug, Default)]
pub struct ObjectScan {
    depth: usize,
    is_string: bool,
    is_escaped: bool,
}

impl ObjectScan {
    /// Returns whether more of the body is needed: it begins as an object that is not
    /// complete. `body` is all that has arrived, `scanned` how much of it was scanned before.
    pub fn needs_more(&mut self, body: &[u8], scanned: usize) -> bool {
        let text = without_mark(body).trim_ascii_start();
        if text.is_empty() || b"\xef\xbb\xbf".starts_with(text) {
            return true;
        }
        if text[0] != b'{' {
            return false;
        }
        let start = (body.len() - text.len()).max(scanned);
        for byte in &body[start..] {
            match (self.is_string, byte) {
                (true, _) if self.is_escaped => self.is_escaped = false,
                (true, b'\\') => self.is_escaped = true,
                (_, b'"') => self.is_string = !self.is_string,
                (false, b'{' | b'[') => self.depth += 1,
                (false, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth == 0 {
                return false;
            }
        }
        true
    }
}

/// Returns the media types and wildcards of `Accept`, without parameters.
fn ranges(accept: &HeaderValue) -> impl Iterator<Item = &str> {
    let ranges = accept.to_str().unwrap_or_default().split(',');
    ranges.map(|range| range.split(';').next().unwrap_or_default().trim())
}
