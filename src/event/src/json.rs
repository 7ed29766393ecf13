//! Canonical JSON (appendices, "Canonical JSON"): a tree that borrows from the bytes that came, and its one encoding.
//!
//! Strict, as room versions 6 and later ask for: no floats, no exponents, no `-0`, no integers beyond 2^53-1, no key twice,
//! no lone surrogates, at most [`MAX_DEPTH`] levels. Events of versions 1 to 5 may hold such numbers and keys and are read
//! leniently ([`Object::parse_lenient`]): of two equal keys the last counts, and floats are written as Python writes them,
//! because that is what the hashes and signatures of those rooms were made over. Why this is our own and not a package:
//! decision record 0001.

#![deny(clippy::indexing_slicing)]

mod float;
mod parse;
mod write;

use std::borrow::Cow;

pub(crate) use parse::Parser;
pub(crate) use write::{write_int, write_string};

/// The greatest integer, and with a minus sign the smallest: 2^53-1.
pub const MAX_INT: i64 = (1 << 53) - 1;

/// How deep objects and arrays may be nested. It is what serde_json reads with its default settings, and so what every
/// server and client built on it accepts: an event that passes here can be read again everywhere above.
pub const MAX_DEPTH: u8 = 127;

/// Why bytes are not JSON that can be put into canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// Something else than JSON stands there.
    #[error("not JSON")]
    Syntax,
    /// The bytes end too early.
    #[error("it ends too early")]
    End,
    /// Something follows after the value.
    #[error("something follows after the value")]
    Trailing,
    /// A number with a fraction or an exponent.
    #[error("numbers must be integers, without fraction or exponent")]
    Float,
    /// An integer beyond 2^53-1 on either side.
    #[error("integers must be between -(2^53-1) and 2^53-1")]
    IntegerRange,
    /// A number of an old room that is beyond what a double can hold.
    #[error("the number is too big")]
    NumberRange,
    /// `-0`.
    #[error("-0 is not allowed")]
    NegativeZero,
    /// A key that stands twice in one object.
    #[error("the key {0:?} stands twice in one object")]
    DuplicateKey(String),
    /// A control character that is not escaped.
    #[error("control characters must be escaped")]
    ControlCharacter,
    /// Half of a surrogate pair.
    #[error("half of a surrogate pair")]
    LoneSurrogate,
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An object was asked for.
    #[error("not an object")]
    NotAnObject,
}

/// Why and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (at byte {at})")]
pub struct JsonError {
    /// What is wrong.
    pub why: Why,
    /// At which byte it was seen.
    pub at: usize,
}

/// A JSON value. Text without escapes is borrowed from the bytes that were parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer between `-MAX_INT` and `MAX_INT`.
    Int(i64),
    /// A number that only lenient reading gives: a float, or an integer beyond [`MAX_INT`]. In its canonical spelling.
    Wide(Box<str>),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// A JSON object, its members in canonical order: by code point, which is the order of their UTF-8 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// The canonical form of JSON bytes.
///
/// # Errors
/// If they are not JSON or hold what canonical JSON does not allow.
pub fn canonical(bytes: &[u8]) -> Result<Vec<u8>, JsonError> {
    let value = Value::parse(bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    value.write_canonical(&mut out);
    Ok(out)
}

/// The canonical form of what one server sends to another: a JSON object around events of whatever room version, so it is
/// read leniently, and the events may be as deep as they may be alone.
///
/// # Errors
/// If the bytes are no JSON object, or deeper than that.
pub fn canonical_request(bytes: &[u8]) -> Result<Vec<u8>, JsonError> {
    match Parser::around_events(bytes)?.whole()? {
        object @ Value::Object(_) => Ok(object.to_canonical()),
        _ => Err(JsonError { why: Why::NotAnObject, at: 0 }),
    }
}

impl<'a> Value<'a> {
    /// Reads one value; only white space may stand around it.
    ///
    /// # Errors
    /// If the bytes are not JSON or hold what canonical JSON does not allow.
    pub fn parse(bytes: &'a [u8]) -> Result<Value<'a>, JsonError> {
        Parser::new(bytes)?.whole()
    }

    /// Appends the canonical form.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        write::write_value(self, out);
    }

    /// The canonical form.
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.write_canonical(&mut out);
        out
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The object, to change it.
    pub fn as_object_mut(&mut self) -> Option<&mut Object<'a>> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Turns a `serde_json` value into one of ours, borrowing its text.
    ///
    /// # Errors
    /// If it holds floats, integers that are too big, or too many levels.
    pub fn from_serde(value: &'a serde_json::Value) -> Result<Value<'a>, JsonError> {
        parse::from_serde(value, MAX_DEPTH)
    }
}

impl<'a> Object<'a> {
    /// An object without members.
    pub fn new() -> Object<'a> {
        Object::default()
    }

    /// Reads an object.
    ///
    /// # Errors
    /// As [`Value::parse`]; also if the value is not an object.
    pub fn parse(bytes: &'a [u8]) -> Result<Object<'a>, JsonError> {
        match Value::parse(bytes)? {
            Value::Object(object) => Ok(object),
            _ => Err(JsonError { why: Why::NotAnObject, at: 0 }),
        }
    }

    /// Reads an object as events of room versions 1 to 5 may have it. Also for reading again what was read before, in
    /// whatever version.
    ///
    /// # Errors
    /// If the value is no object, not JSON, or holds a number that no double can hold.
    pub fn parse_lenient(bytes: &'a [u8]) -> Result<Object<'a>, JsonError> {
        match Parser::lenient(bytes)?.whole()? {
            Value::Object(object) => Ok(object),
            _ => Err(JsonError { why: Why::NotAnObject, at: 0 }),
        }
    }

    /// Takes members in any order; of two equal keys the last counts. Says whether there were any.
    pub(crate) fn from_members_lenient(mut members: Vec<(Cow<'a, str>, Value<'a>)>) -> (Object<'a>, bool) {
        if members.is_sorted_by(|a, b| a.0 < b.0) {
            return (Object { members }, false);
        }
        // The sort is stable, so the last of equal keys comes last and replaces those before it.
        members.sort_by(|a, b| a.0.cmp(&b.0));
        let before = members.len();
        members.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        let twice = members.len() != before;
        (Object { members }, twice)
    }

    /// Takes members in any order. Says which key stands twice.
    pub(crate) fn from_members(members: Vec<(Cow<'a, str>, Value<'a>)>) -> Result<Object<'a>, String> {
        let mut object = Object { members };
        let sorted = object.members.is_sorted_by(|a, b| a.0 < b.0);
        if !sorted {
            object.members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let twice = object.members.windows(2).find_map(|pair| match pair {
                [a, b] if a.0 == b.0 => Some(a.0.to_string()),
                _ => None,
            });
            if let Some(key) = twice {
                return Err(key);
            }
        }
        Ok(object)
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(k, _)| k.as_ref().cmp(key))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.find(key).ok().and_then(|at| self.members.get(at)).map(|(_, v)| v)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        let at = self.find(key).ok()?;
        self.members.get_mut(at).map(|(_, v)| v)
    }

    /// The text that a key has.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// The object that a key has.
    pub fn get_object(&self, key: &str) -> Option<&Object<'a>> {
        self.get(key).and_then(Value::as_object)
    }

    /// Puts a value in its place, and gives back what stood there.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) -> Option<Value<'a>> {
        let key = key.into();
        match self.find(&key) {
            Ok(at) => self.members.get_mut(at).map(|slot| std::mem::replace(&mut slot.1, value)),
            Err(at) => {
                self.members.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        self.find(key).ok().map(|at| self.members.remove(at).1)
    }

    /// The members in canonical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value<'a>)> {
        self.members.iter().map(|(k, v)| (k.as_ref(), v))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Appends the canonical form.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        self.write_if(out, |_| true);
    }

    /// Appends the canonical form of the members whose key pleases.
    pub(crate) fn write_if(&self, out: &mut Vec<u8>, keep: impl Fn(&str) -> bool) {
        write::write_members(self.iter().filter(|(k, _)| keep(k)), out);
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Cow::Owned(text))
    }
}

impl<'a> From<Object<'a>> for Value<'a> {
    fn from(object: Object<'a>) -> Self {
        Value::Object(object)
    }
}
