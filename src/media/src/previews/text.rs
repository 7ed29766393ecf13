//! The bytes of a page as text: which encoding they have (HTML Standard, "Determining the character encoding", in short).

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

use super::html;

/// Within so many bytes a page says its encoding.
const HEAD: usize = 4096;

/// The text of a page, whose `Content-Type` may name an encoding.
pub(super) fn decode<'a>(bytes: &'a [u8], content_type: &str) -> Cow<'a, str> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let said = charset(content_type).or_else(|| html::charset(head).as_deref().and_then(label));
    let encoding = said.unwrap_or_else(|| match is_utf8(bytes) {
        true => UTF_8,
        false => WINDOWS_1252,
    });
    // What a byte order mark says goes before all else.
    encoding.decode(bytes).0
}

/// The encoding that a media type names.
pub(super) fn charset(content_type: &str) -> Option<&'static Encoding> {
    let parameter = |part: &str| -> Option<String> {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    content_type.split(';').skip(1).find_map(parameter).as_deref().and_then(label)
}

fn label(name: &str) -> Option<&'static Encoding> {
    Encoding::for_label(name.as_bytes())
}

/// Whether the bytes are UTF-8, which may be cut at the end.
fn is_utf8(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(why) => why.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_goes_before_the_page_and_a_mark_before_both() {
        let latin = b"<meta charset=utf-8>caf\xe9";
        assert!(decode(latin, "text/html; charset=ISO-8859-1").ends_with("café"));
        assert!(decode(latin, "text/html").ends_with("caf\u{fffd}"));
        assert_eq!(decode(b"\xef\xbb\xbfcaf\xc3\xa9", "text/html; charset=latin1"), "café");
        assert_eq!(decode(b"\xff\xfea\0b\0", "text/html; charset=utf-8"), "ab");
    }

    #[test]
    fn the_page_can_say_it_in_three_ways() {
        let pages: [&[u8]; 3] = [
            b"<html><head><meta charset=\"shift_jis\"><title>\x93\xfa\x96\x7b",
            b"<meta http-equiv=Content-Type content=\"text/html; charset=Shift_JIS\"><title>\x93\xfa\x96\x7b",
            b"<?xml version=\"1.0\" encoding=\"Shift_JIS\"?><title>\x93\xfa\x96\x7b",
        ];
        for page in pages {
            assert!(decode(page, "text/html").ends_with("日本"), "{:?}", decode(page, "text/html"));
        }
    }

    #[test]
    fn what_says_nothing_is_utf8_or_western() {
        assert_eq!(decode("日本".as_bytes(), ""), "日本");
        assert_eq!(decode(b"caf\xe9!", "text/html"), "café!");
        // Cut within a character.
        assert_eq!(decode(&"日本".as_bytes()[..5], ""), "日\u{fffd}");
        assert_eq!(decode(b"caf\xc3\xa9", "text/html; charset=nonsense"), "café");
    }
}
