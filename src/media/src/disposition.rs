//! What a browser may do with a file (Client-Server API, "Serving inline content").

use std::fmt::Write;

/// The media types that a browser shows without running anything.
const INLINE: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Whether a file of that type may be shown in the place where it is asked for.
pub fn may_be_inline(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    INLINE.contains(&kind.as_str())
}

/// The `Content-Disposition` of a file: ASCII without control characters, whatever its name is.
pub fn disposition(content_type: &str, name: Option<&str>) -> String {
    let mut out = if may_be_inline(content_type) { "inline" } else { "attachment" }.to_owned();
    let Some(name) = name.filter(|name| !name.is_empty()) else { return out };
    let plain = |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'%'));
    if name.bytes().all(plain) {
        let _ = write!(out, "; filename=\"{name}\"");
        return out;
    }
    // RFC 6266, with the encoding of RFC 8187.
    out += "; filename*=utf-8''";
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_types_are_shown_inline() {
        assert!(may_be_inline("image/png"));
        assert!(may_be_inline("TEXT/Plain; charset=utf-8"));
        assert!(!may_be_inline("text/html"));
        assert!(!may_be_inline("image/svg+xml"));
        assert!(!may_be_inline(""));
    }

    #[test]
    fn names_cannot_break_out_of_the_header() {
        assert_eq!(disposition("image/png", Some("a b.png")), "inline; filename=\"a b.png\"");
        assert_eq!(disposition("text/html", None), "attachment");
        assert_eq!(disposition("x/y", Some("ä\"\r\n")), "attachment; filename*=utf-8''%C3%A4%22%0D%0A");
        assert_eq!(disposition("x/y", Some("100%")), "attachment; filename*=utf-8''100%25");
    }
}
