//! Answers of two parts, read as they come (Server-Server API, "Content Repository"; RFC 2046): the metadata, then the file
//! or where it is.

use bytes::{Bytes, BytesMut};
use ruma_common::http_headers::ContentDisposition;

use crate::upload::{About, TEXT_BYTES};

/// The most bytes before the first part, of the head of a part, and of the metadata.
const MAX_HEAD: usize = 64 * 1024;
/// RFC 2046 allows 70.
const MAX_BOUNDARY: usize = 200;

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Bad(&'static str);

/// What the second part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of the file.
    pub(crate) about: About,
    /// Where the file is, if it is not in this part.
    pub(crate) location: Option<String>,
}

/// Where we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Preamble,
    MetadataHead,
    Metadata,
    FileHead,
    File,
    End,
}

/// Reads such an answer.
pub(crate) struct Reader {
    /// What stands before each part, with the end of the line above it.
    delimiter: Vec<u8>,
    held: BytesMut,
    /// How many bytes at the beginning are not of the file.
    lead: usize,
    at: At,
    head: Head,
}

impl Reader {
    /// For a body of that media type.
    pub(crate) fn new(content_type: &str) -> Result<Reader, Bad> {
        let boundary = boundary(content_type).ok_or(Bad("the answer is no multipart/mixed with a boundary"))?;
        // As if a line ended before the body: then the first delimiter is as all others.
        let held = BytesMut::from(&b"\r\n"[..]);
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        Ok(Reader { delimiter, held, lead: 0, at: At::Preamble, head: Head::default() })
    }

    /// Takes the next bytes; gives what they hold of the file.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Bytes, Bad> {
        if self.at == At::End {
            return Ok(Bytes::new());
        }
        self.held.extend_from_slice(bytes);
        while self.at != At::File && self.at != At::End {
            if !self.step()? {
                return if self.held.len() > MAX_HEAD { Err(Bad("a head has no end")) } else { Ok(Bytes::new()) };
            }
        }
        Ok(if self.at == At::File { self.file() } else { Bytes::new() })
    }

    /// What the second part says of itself, when that has come.
    pub(crate) fn head(&self) -> Option<&Head> {
        matches!(self.at, At::File | At::End).then_some(&self.head)
    }

    /// Whether nothing that follows matters.
    pub(crate) fn is_done(&self) -> bool {
        self.at == At::End
    }

    /// One step before the file; `false` where more bytes are needed.
    fn step(&mut self) -> Result<bool, Bad> {
        match self.at {
            At::Preamble | At::Metadata => {
                let Some(start) = find(&self.held, &self.delimiter) else { return Ok(false) };
                let _ = self.held.split_to(start + self.delimiter.len());
                self.at = if self.at == At::Preamble { At::MetadataHead } else { At::FileHead };
            }
            At::MetadataHead | At::FileHead => {
                if self.held.starts_with(b"--") {
                    return Err(Bad("a part is missing"));
                }
                let Some(end) = head_end(&self.held) else { return Ok(false) };
                let head = self.held.split_to(end);
                if self.at == At::MetadataHead {
                    self.at = At::Metadata;
                } else {
                    self.head = read_head(&head);
                    self.at = if self.head.location.is_some() { At::End } else { At::File };
                }
                // The line that ends the head may also be the one that ends an empty part.
                self.held = [b"\r\n", &self.held[..]].concat().as_slice().into();
                self.lead = 2;
            }
            At::File | At::End => {}
        }
        Ok(true)
    }

    /// What is of the file for sure.
    fn file(&mut self) -> Bytes {
        if let Some(end) = find(&self.held, &self.delimiter) {
            self.at = At::End;
            return self.give(end);
        }
        // The beginning of a delimiter may be at the end.
        self.give(self.held.len().saturating_sub(self.delimiter.len() - 1))
    }

    fn give(&mut self, length: usize) -> Bytes {
        let mut given = self.held.split_to(length).freeze();
        let not_of_it = self.lead.min(length);
        self.lead -= not_of_it;
        given.split_off(not_of_it)
    }
}

/// What a whole answer holds, given in pieces of a size: what is said of the file, and the file. For fuzzing.
///
/// # Errors
/// What is wrong with it.
#[doc(hidden)]
pub fn read_multipart(kind: &str, body: &[u8], size: usize) -> Result<(String, Vec<u8>), String> {
    let mut reader = Reader::new(kind).map_err(|bad| bad.to_string())?;
    let mut file = Vec::new();
    for piece in body.chunks(size.max(1)) {
        file.extend_from_slice(&reader.take(piece).map_err(|bad| bad.to_string())?);
    }
    Ok((format!("{:?}", reader.head()), file))
}

/// What a head says; no more than is needed, and only what can be said again.
fn read_head(head: &[u8]) -> Head {
    let mut read = Head::default();
    // The first line is the end of the delimiter's.
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-type") {
            read.about.content_type = content_type(value);
        } else if name.eq_ignore_ascii_case(b"content-disposition") {
            read.about.name = file_name(value);
        } else if name.eq_ignore_ascii_case(b"location") {
            read.location = std::str::from_utf8(value).ok().map(str::to_owned);
        }
    }
    read
}

/// A media type as another server says it, if it is one line of a reasonable length.
pub(crate) fn content_type(value: &[u8]) -> Option<String> {
    let good = value.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') && value.len() <= TEXT_BYTES;
    std::str::from_utf8(value).ok().filter(|text| good && !text.is_empty()).map(str::to_owned)
}

/// The file's name in a `Content-Disposition`, not longer than ours may be.
pub(crate) fn file_name(value: &[u8]) -> Option<String> {
    let mut name = ContentDisposition::try_from(value).ok()?.filename?;
    name.truncate(name.floor_char_boundary(TEXT_BYTES));
    Some(name).filter(|name| !name.is_empty())
}

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    // No character that a boundary may have needs to be escaped, and `;` is none of them.
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    let good = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (1..=MAX_BOUNDARY).contains(&boundary.len()).then_some(boundary).filter(|text| text.bytes().all(good))
}

/// Where a head ends: behind the first empty line after the one that it begins with.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut start = None;
    for end in ends {
        match start {
            Some(start) if bytes[start..end].trim_ascii().is_empty() => return Some(end + 1),
            _ => start = Some(end + 1),
        }
    }
    None
}

/// The needle begins with a carriage return, and has no other.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(next) = bytes[from..].iter().position(|byte| *byte == b'\r') {
        if bytes[from + next..].starts_with(needle) {
            return Some(from + next);
        }
        from += next + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/mixed; boundary=abc";

    /// Reads a body in pieces of a size; the answer is what was there when it ended.
    fn read(kind: &str, body: &[u8], size: usize) -> Result<(Vec<u8>, Head, bool), Bad> {
        let (mut reader, mut file) = (Reader::new(kind)?, Vec::new());
        for piece in body.chunks(size) {
            file.extend_from_slice(&reader.take(piece)?);
        }
        Ok((file, reader.head().cloned().unwrap_or_default(), reader.is_done()))
    }

    fn about(content_type: &str, name: Option<&str>) -> About {
        About { content_type: Some(content_type.into()), name: name.map(str::to_owned) }
    }

    #[test]
    fn a_file_comes_out_as_it_went_in_however_it_is_cut() {
        let file = b"\r\n--ab\r\r\n--abX not quite\r\n\r\n--a\n--abc\r";
        let body = [
            b"\r\n--abc\r\nContent-Type: application/json\r\n\r\n{}\r\n--abc\r\nContent-Type: image/png\r\n\
              Content-Disposition: inline; filename=\"a b.png\"\r\n\r\n"
                .as_slice(),
            file,
            b"\r\n--abc--\r\nwhatever follows",
        ]
        .concat();
        for size in 1..body.len() {
            let (read, head, done) = read(KIND, &body, size).unwrap();
            assert_eq!((read.as_slice(), done), (file.as_slice(), true), "in pieces of {size}");
            assert_eq!(head, Head { about: about("image/png", Some("a b.png")), location: None });
        }
        // Every end before the last delimiter is noticed.
        let last = body.len() - "--\r\nwhatever follows".len();
        for end in 0..body.len() {
            assert_eq!(read(KIND, &body[..end], 7).unwrap().2, end >= last, "{end}");
        }
    }

    #[test]
    fn what_servers_write_differently() {
        for (kind, body) in [
            // Without the end of a line before, and with one after.
            (
                KIND,
                "--abc\r\nContent-Type:application/json\r\n\r\n{}\r\n--abc\r\ncontent-TYPE: a/b\r\n\r\nx\r\n--abc--\r\n",
            ),
            // Heads in Unix lines, spaces behind a delimiter, a preamble, metadata, a last delimiter that does not say so.
            (KIND, "hi\r\n--abc \nA: b\n\n{\"a\":1}\r\n--abc\nContent-Type: a/b\n\nx\r\n--abc"),
            (
                "Multipart/Mixed; charset=x; Boundary=\"abc\"",
                "--abc\r\n\r\n{}\r\n--abc\r\nContent-Type: a/b\r\n\r\nx\r\n--abc--",
            ),
            (KIND, "--abc\r\n\r\n--abc\r\nContent-Type: a/b\r\n\r\nx\r\n--abc--"),
        ] {
            let (file, head, done) = read(kind, body.as_bytes(), 5).unwrap();
            assert_eq!((file.as_slice(), head.about, done), (b"x".as_slice(), about("a/b", None), true), "{body}");
        }
    }

    #[test]
    fn what_ruma_writes() {
        use ruma_common::{api::OutgoingResponseExt, http_headers::ContentDispositionType};
        use ruma_federation_api::authenticated_media::{Content, ContentMetadata, FileOrLocation, get_content::v1};

        let named =
            ContentDisposition::new(ContentDispositionType::Inline).with_filename(Some("\u{e4} \"b\"".to_owned()));
        let content = Content::new(b"\r\n--x\r\n".to_vec(), "a/b".to_owned(), named);
        for content in [FileOrLocation::File(content), FileOrLocation::Location("https://x.example/".to_owned())] {
            let written = v1::Response::new(ContentMetadata::new(), content.clone());
            let written = written.try_into_http_response::<Vec<u8>>().unwrap();
            let kind = written.headers()["content-type"].to_str().unwrap();
            let (file, head, done) = read(kind, written.body(), 9).unwrap();
            assert!(done);
            match content {
                FileOrLocation::Location(place) => assert_eq!(head.location, Some(place)),
                _ => assert_eq!((file, head.about), (b"\r\n--x\r\n".to_vec(), about("a/b", Some("\u{e4} \"b\"")))),
            }
        }
    }

    #[test]
    fn an_empty_file_is_a_file() {
        for body in ["--abc\r\n\r\n{}\r\n--abc\r\n\r\n\r\n--abc--", "--abc\r\n\r\n{}\r\n--abc\r\n\r\n--abc--"] {
            assert_eq!(read(KIND, body.as_bytes(), 3), Ok((Vec::new(), Head::default(), true)), "{body}");
        }
    }

    #[test]
    fn the_second_part_may_only_say_where_the_file_is() {
        let body = b"--abc\r\n\r\n{}\r\n--abc\r\nLocation: https://cdn.example/x?y=z\r\n\r\nnothing\r\n--abc--";
        let (file, head, done) = read(KIND, body, 4).unwrap();
        assert_eq!((file.len(), done), (0, true));
        assert_eq!(head.location.as_deref(), Some("https://cdn.example/x?y=z"));
    }

    #[test]
    fn what_is_no_such_answer() {
        for kind in [
            "multipart/mixed",
            "multipart/form-data; boundary=abc",
            "text/html; boundary=abc",
            "multipart/mixed; boundary=",
            "multipart/mixed; boundary=\"a\nb\"",
        ] {
            assert!(Reader::new(kind).is_err(), "{kind}");
        }
        assert!(Reader::new(&format!("multipart/mixed; boundary={}", "a".repeat(201))).is_err());
        assert!(read(KIND, b"--abc\r\n\r\n{}\r\n--abc--\r\n", 4).is_err(), "one part");
        assert!(read(KIND, b"--abc--\r\n", 4).is_err(), "no part");
        for endless in ["x", "--abc\r\na: b", "--abc\r\n\r\n", "--abc\r\n\r\n{}\r\n--abc\r\n"] {
            let body = [endless.as_bytes(), &[b'x'; 70_000]].concat();
            assert!(read(KIND, &body, 1000).is_err(), "{endless}");
        }
        assert_eq!(read(KIND, b"", 1).map(|read| read.2), Ok(false));
    }

    #[test]
    fn what_cannot_be_said_again_is_left_out() {
        assert_eq!(content_type(b"text/plain; charset=utf-8").as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(content_type(b"a\0b"), None);
        assert_eq!(content_type("\u{e4}/b".as_bytes()), None);
        assert_eq!(content_type(&[b'a'; 256]), None);
        assert_eq!(file_name(b"attachment"), None);
        assert_eq!(file_name(b"inline; filename*=utf-8''%C3%A4.png; filename=a.png").as_deref(), Some("\u{e4}.png"));
        let long = format!("inline; filename*=utf-8''{}", "%C3%A4".repeat(200));
        assert_eq!(file_name(long.as_bytes()).map(|name| name.len()), Some(254));
    }
}
