//! The `Authorization` header of requests between servers (Server-Server API, "Request Authentication"): reading it, writing
//! it, and the bytes that are signed.

use std::fmt;

use stoa_event::{
    ids::{OwnedServerName, ServerName},
    json::{self, JsonError, Value},
};

use crate::deep;

/// The longest header that is read.
pub const MAX_HEADER: usize = 4096;

const SCHEME: &str = "X-Matrix";

/// Who signed a request, for whom, with which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XMatrix {
    /// The server that sends.
    pub origin: OwnedServerName,
    /// The server that it is for. Servers from before version 1.3 of the specification do not say it.
    pub destination: Option<OwnedServerName>,
    /// The key, as `ed25519:version`.
    pub key: String,
    /// The signature, in base64.
    pub sig: String,
}

/// Why a header is not an X-Matrix one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Another scheme.
    #[error("the authorization is not X-Matrix")]
    Scheme,
    /// Not a list of `name=value`.
    #[error("the X-Matrix header is not a list of name=value")]
    Syntax,
    /// Something is not there.
    #[error("the X-Matrix header has no {0}")]
    Missing(&'static str),
    /// Something stands twice.
    #[error("the X-Matrix header has {0} twice")]
    Twice(&'static str),
    /// Not the name of a server.
    #[error("{0} in the X-Matrix header is not the name of a server")]
    ServerName(&'static str),
    /// Too long.
    #[error("the X-Matrix header is too long")]
    TooLong,
}

impl XMatrix {
    /// Reads the value of an `Authorization` header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(header: &str) -> Result<XMatrix, ParseError> {
        if header.len() > MAX_HEADER {
            return Err(ParseError::TooLong);
        }
        let header = header.trim_matches([' ', '\t']);
        let (scheme, mut rest) = header.split_once(' ').ok_or(ParseError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(ParseError::Scheme);
        }
        let mut found: [Option<String>; 4] = Default::default();
        while let Some((name, value)) = parameter(&mut rest)? {
            const NAMES: [&str; 4] = ["origin", "destination", "key", "sig"];
            let Some(at) = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known)) else {
                continue;
            };
            if found[at].replace(value).is_some() {
                return Err(ParseError::Twice(NAMES[at]));
            }
        }
        let [origin, destination, key, sig] = found;
        let server = |name: String, which| OwnedServerName::try_from(name).map_err(|_| ParseError::ServerName(which));
        Ok(XMatrix {
            origin: server(origin.ok_or(ParseError::Missing("origin"))?, "origin")?,
            destination: destination.map(|name| server(name, "destination")).transpose()?,
            key: key.ok_or(ParseError::Missing("key"))?,
            sig: sig.ok_or(ParseError::Missing("sig"))?,
        })
    }
}

/// Takes one `name=value` off the front, with the comma behind it.
fn parameter<'a>(rest: &mut &'a str) -> Result<Option<(&'a str, String)>, ParseError> {
    // Empty elements of a list are allowed (RFC 9110, section 5.6.1).
    *rest = rest.trim_start_matches([' ', '\t', ',']);
    if rest.is_empty() {
        return Ok(None);
    }
    let (name, after) = rest.split_once('=').ok_or(ParseError::Syntax)?;
    let name = name.trim_end_matches([' ', '\t']);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(ParseError::Syntax);
    }
    let after = after.trim_start_matches([' ', '\t']);
    let (value, after) = match after.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => {
            // Colons and slashes are no token characters, but older servers send them (and base64 has `/`, `+` and `=`).
            let end = after.find([',', ' ', '\t']).unwrap_or(after.len());
            let (value, after) = after.split_at(end);
            if value.is_empty() || !value.bytes().all(|byte| is_token(byte) || b":/=[]".contains(&byte)) {
                return Err(ParseError::Syntax);
            }
            (value.to_owned(), after)
        }
    };
    let after = after.trim_start_matches([' ', '\t']);
    if !after.is_empty() && !after.starts_with(',') {
        return Err(ParseError::Syntax);
    }
    *rest = after;
    Ok(Some((name, value)))
}

/// What stands before the closing quote, unescaped, and what follows it.
fn unquote(text: &str) -> Result<(String, &str), ParseError> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(letters.next().ok_or(ParseError::Syntax)?.1),
            _ => value.push(letter),
        }
    }
    Err(ParseError::Syntax)
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl fmt::Display for XMatrix {
    /// As the specification asks of senders: one space, small letters, everything in quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME} origin=\"{}\"", self.origin)?;
        if let Some(destination) = &self.destination {
            write!(f, ",destination=\"{destination}\"")?;
        }
        write!(f, ",key=\"{}\",sig=\"{}\"", self.key, self.sig)
    }
}

/// The bytes that the origin of a request signs. `uri` is the path with the query.
///
/// # Errors
/// If the body is not JSON that can be signed.
pub fn signed_bytes(
    method: &str,
    uri: &str,
    origin: &ServerName,
    destination: &ServerName,
    body: Option<&[u8]>,
) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::with_capacity(256 + body.map_or(0, <[u8]>::len));
    out.push(b'{');
    // The keys are written in canonical order.
    if let Some(body) = body.filter(|body| !body.is_empty()) {
        out.extend_from_slice(b"\"content\":");
        // One event that is too deep must not make the whole transaction one that nobody signed.
        let canonical = json::canonical_request(body).or_else(|why| deep::canonical(body).ok_or(why));
        out.extend_from_slice(&canonical?);
        out.push(b',');
    }
    let parts = [("destination", destination.as_str()), ("method", method), ("origin", origin.as_str()), ("uri", uri)];
    for (n, (key, value)) in parts.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        Value::from(key).write_canonical(&mut out);
        out.push(b':');
        Value::from(value).write_canonical(&mut out);
    }
    out.push(b'}');
    Ok(out)
}
