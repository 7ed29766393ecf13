//! Writing responses: JSON objects spliced together from raw parts, nothing parsed.

use std::fmt::Display;
use std::io::Write as _;

/// Writes a string with its quotes and escapes.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Writing into a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// An object that is being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens it. [`Object::end`] closes it.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, first: true }
    }

    /// Begins a field; what is written to the result is its value.
    pub(crate) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        string(self.out, key);
        self.out.push(b':');
        self.out
    }

    /// A field with JSON that is there.
    pub(crate) fn raw(&mut self, key: &str, json: &[u8]) -> &mut Self {
        self.key(key).extend_from_slice(json);
        self
    }

    /// A field with a string.
    pub(crate) fn str(&mut self, key: &str, text: &str) -> &mut Self {
        string(self.key(key), text);
        self
    }

    /// A field with a number or a boolean.
    pub(crate) fn plain(&mut self, key: &str, value: impl Display) -> &mut Self {
        let _ = write!(self.key(key), "{value}");
        self
    }

    /// A field with an array of JSON that is there.
    pub(crate) fn array<T: AsRef<[u8]>>(&mut self, key: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        array(self.key(key), items);
        self
    }

    /// A field with an array of strings.
    pub(crate) fn strings<T: AsRef<str>>(&mut self, key: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let out = self.key(key);
        out.push(b'[');
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            string(out, item.as_ref());
        }
        out.push(b']');
        self
    }

    /// A field `{"events": [...]}`.
    pub(crate) fn events<T: AsRef<[u8]>>(&mut self, key: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let out = self.key(key);
        out.extend_from_slice(br#"{"events":"#);
        array(out, items);
        out.push(b'}');
        self
    }

    /// Closes it.
    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes an array of JSON that is there.
pub(crate) fn array<T: AsRef<[u8]>>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>) {
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item.as_ref());
    }
    out.push(b']');
}

/// `{"type": kind, "content": content}`
pub(crate) fn typed(kind: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + kind.len() + 24);
    let mut event = Object::new(&mut out);
    event.str("type", kind).raw("content", content);
    event.end();
    out
}
