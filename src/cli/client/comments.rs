//! Comments of a descriptor.

use prost_reflect::FileDescriptor;

/// Returns the comment of the element with this path in a file; empty if it has none, or the
/// descriptor set was compiled without comments.
pub(in crate::cli) fn of(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let mut locations = info.iter().flat_map(|info| &info.location);
    let location = locations.find(|location| location.path == path);
    let Some(location) = location else {
        return String::new();
    };
    // The comment above an element, or that behind it on the same line.
    let comments = [location.leading_comments(), location.trailing_comments()];
    let comment = comments.into_iter().find(|text| !text.trim().is_empty());
    let lines = comment.unwrap_or_default().lines();
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect();
    super::text::sanitize_lines(lines.join("\n").trim_matches('\n'))
}
