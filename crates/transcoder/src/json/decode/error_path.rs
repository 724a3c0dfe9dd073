//! Paths of members and elements, computed from positions in the text.

use super::super::excerpt;
use super::DecodeFailure;

/// Returns the path of an error in its text.
pub(in super::super) fn path_of(text: &[u8], fault: &DecodeFailure) -> String {
    join(path_at(text, fault.at), &fault.inner)
}

pub(in super::super) fn join(mut path: String, inner: &str) -> String {
    if !path.is_empty() && !inner.is_empty() && !inner.starts_with('[') {
        path.push('.');
    }
    path + inner
}

/// Returns the path of the value at a position in the text, which is valid up to there:
/// `software_deployments[3].creation_time`.
pub(in super::super) fn path_at(text: &[u8], at: usize) -> String {
    enum Step<'a> {
        Member(&'a [u8]),
        Element(usize),
    }
    let mut steps = Vec::new();
    let mut name_is_next = false;
    let mut i = 0;
    while i < at {
        match text[i] {
            b'{' => {
                steps.push(Step::Member(b""));
                name_is_next = true;
            }
            b'[' => steps.push(Step::Element(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Element(index)) => *index += 1,
                Some(Step::Member(name)) => {
                    *name = b"";
                    name_is_next = true;
                }
                None => {}
            },
            b'"' => {
                let start = i + 1;
                i = start;
                while i < at && text[i] != b'"' {
                    i += if text[i] == b'\\' { 2 } else { 1 };
                }
                if name_is_next && let Some(Step::Member(name)) = steps.last_mut() {
                    *name = &text[start..i.min(at)];
                    name_is_next = false;
                }
            }
            _ => {}
        }
        i += 1;
    }
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Element(index) => path = join(path, &format!("[{index}]")),
            Step::Member(name) => path = join(path, &excerpt(name)),
        }
    }
    path
}
