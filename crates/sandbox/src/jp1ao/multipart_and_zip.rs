//! The subset of multipart bodies and zip archives that service templates need.

/// A file of a multipart body.
#[derive(Debug, PartialEq)]
pub struct File<'a> {
    pub name: String,
    pub bytes: &'a [u8],
}

/// Returns the boundary of a multipart/form-data content type.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim().trim_matches('"'))
    })?;
    (1..=70).contains(&value.len()).then_some(value)
}

/// Returns the file in the part of this name.
pub fn file<'a>(body: &'a [u8], boundary: &str, part: &str) -> Option<File<'a>> {
    let line = format!("--{boundary}");
    let mut rest = after(body, line.as_bytes())?;
    let delimiter = format!("\r\n{line}");
    loop {
        rest = rest.strip_prefix(b"\r\n")?;
        let headers_end = find(rest, b"\r\n\r\n")?;
        let headers = std::str::from_utf8(&rest[..headers_end]).ok()?;
        let content = &rest[headers_end + 4..];
        let end = find(content, delimiter.as_bytes())?;
        if named(headers, "name").as_deref() == Some(part) {
            return Some(File {
                name: named(headers, "filename")?,
                bytes: &content[..end],
            });
        }
        rest = &content[end + delimiter.len()..];
    }
}

/// Returns a parameter of `Content-Disposition`.
fn named(headers: &str, wanted: &str) -> Option<String> {
    let line = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    })?;
    line.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        (name.trim() == wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn after<'a>(bytes: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    bytes.get(find(bytes, wanted)? + wanted.len()..)
}

const LOCAL_FILE_SIGNATURE: &[u8] = b"PK\x03\x04";

pub fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL_FILE_SIGNATURE)
}

/// Builds an archive with one uncompressed file.
pub fn zip(name: &str, content: &[u8]) -> Option<Vec<u8>> {
    let (size, length) = (
        u32::try_from(content.len()).ok()?,
        u16::try_from(name.len()).ok()?,
    );
    let crc = crc(content);
    let mut common = Vec::new();
    for half in [20u16, 0, 0, 0, 0x21] {
        // Version, flags, method, time, day: 1980-01-01.
        common.extend_from_slice(&half.to_le_bytes());
    }
    for word in [crc, size, size] {
        common.extend_from_slice(&word.to_le_bytes());
    }
    common.extend_from_slice(&length.to_le_bytes());
    common.extend_from_slice(&[0, 0]);

    let mut out = LOCAL_FILE_SIGNATURE.to_vec();
    out.extend_from_slice(&common);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(content);
    let directory = u32::try_from(out.len()).ok()?;
    out.extend_from_slice(b"PK\x01\x02\x14\x00");
    out.extend_from_slice(&common);
    // No comment, first disk, no attributes, offset 0.
    out.extend_from_slice(&[0; 14]);
    out.extend_from_slice(name.as_bytes());
    let end = u32::try_from(out.len()).ok()?;
    out.extend_from_slice(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    out.extend_from_slice(&(end - directory).to_le_bytes());
    out.extend_from_slice(&directory.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    Some(out)
}

/// Returns the content of an uncompressed file, if it exists and its checksum is
/// correct.
pub fn unzip<'a>(mut archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    while let Some(entry) = archive.strip_prefix(LOCAL_FILE_SIGNATURE) {
        let half = |at: usize| Some(u16::from_le_bytes(entry.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(entry.get(at..at + 4)?.try_into().ok()?));
        let (method, expected) = (half(4)?, word(10)?);
        let size = usize::try_from(word(14)?).ok()?;
        let (name_length, extra) = (usize::from(half(22)?), usize::from(half(24)?));
        let entry_name = entry.get(26..26 + name_length)?;
        let start = 26 + name_length + extra;
        let content = entry.get(start..start.checked_add(size)?)?;
        if entry_name == name.as_bytes() {
            return (method == 0 && crc(content) == expected).then_some(content);
        }
        archive = &entry[start + size..];
    }
    None
}

/// Computes CRC-32 as in zip.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
            crc = crc >> 1 ^ carry;
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
        let archive = zip("a.json", b"{}").unwrap();
        assert!(is_zip(&archive));
        assert_eq!(unzip(&archive, "a.json"), Some(&b"{}"[..]));
        assert_eq!(unzip(&archive, "b.json"), None);
        let mut spoiled = archive.clone();
        spoiled[36] = b'[';
        assert_eq!(unzip(&spoiled, "a.json"), None);
        for cut in 0..archive.len() {
            // Readable even if the archive is truncated after the content.
            assert_eq!(
                unzip(&archive[..cut], "a.json").is_some(),
                cut >= 38,
                "{cut}"
            );
        }
    }

    #[test]
    fn multipart() {
        let body = "preamble\r\n--b1\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--b1\r\ncontent-disposition: form-data; name=\"file\"; filename=\"日本.st\"\r\nContent-Type: application/zip\r\n\r\nPK\r\n--b\r\n--b1--\r\n";
        let file = |part| file(body.as_bytes(), "b1", part);
        assert_eq!(
            file("file"),
            Some(File {
                name: "日本.st".into(),
                bytes: b"PK\r\n--b"
            })
        );
        assert_eq!(file("other"), None, "no file name");
        assert_eq!(file("none"), None);
        for (text, want) in [
            ("multipart/form-data; boundary=b1", Some("b1")),
            (
                "Multipart/Form-Data; charset=x; Boundary=\"b 1\"",
                Some("b 1"),
            ),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("application/zip; boundary=b1", None),
        ] {
            assert_eq!(boundary(text), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_input_does_not_panic(bytes: Vec<u8>) {
            let _ = file(&bytes, "b", "file");
            let _ = unzip(&bytes, "a");
            let mut archive = LOCAL_FILE_SIGNATURE.to_vec();
            archive.extend_from_slice(&bytes);
            let _ = unzip(&archive, "a");
        }
    }
}
