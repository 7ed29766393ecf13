//! Reading JSON into the borrowed tree, or over it without a tree where bytes are trusted.

use std::{borrow::Cow, ops::Range};

use super::{JsonError, MAX_DEPTH, MAX_INT, Object, Value, Why, float, write::plain_len};

/// A member of the outermost object: key, where its value stands, and the value.
pub(crate) struct Member<'a, V> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) range: Range<usize>,
    pub(crate) value: V,
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    levels: u8,
    lenient: bool,
    odd: bool,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Parser<'a>, JsonError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Parser { text, bytes, at: 0, levels: MAX_DEPTH, lenient: false, odd: false }),
            Err(e) => Err(JsonError { why: Why::Utf8, at: e.valid_up_to() }),
        }
    }

    /// Reads what events of room versions 1 to 5 may hold as well.
    pub(crate) fn lenient(bytes: &'a [u8]) -> Result<Parser<'a>, JsonError> {
        Ok(Parser { lenient: true, ..Parser::new(bytes)? })
    }

    /// Reads what stands around events too: more levels than an event may have.
    pub(crate) fn around_events(bytes: &'a [u8]) -> Result<Parser<'a>, JsonError> {
        const AROUND: u8 = 8;
        Ok(Parser { levels: MAX_DEPTH + AROUND, ..Parser::lenient(bytes)? })
    }

    /// One value and nothing after it, and whether it holds something that canonical JSON has not.
    pub(crate) fn whole_and_odd(mut self) -> Result<(Value<'a>, bool), JsonError> {
        let value = self.value()?;
        self.end()?;
        Ok((value, self.odd))
    }

    /// One value and nothing after it.
    pub(crate) fn whole(mut self) -> Result<Value<'a>, JsonError> {
        let value = self.value()?;
        self.end()?;
        Ok(value)
    }

    /// The members of the outermost object, each with the place of its value.
    pub(crate) fn members(self) -> Result<Vec<Member<'a, Value<'a>>>, JsonError> {
        self.outermost(|parser, _| parser.value())
    }

    /// The same over trusted bytes: only keys that `wanted` names are read, the others are stepped over.
    pub(crate) fn trusted_members(
        self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Member<'a, Option<Value<'a>>>>, JsonError> {
        self.outermost(|parser, key| match wanted(key) {
            true => parser.value().map(Some),
            false => parser.skip().map(|()| None),
        })
    }

    fn outermost<V>(
        mut self,
        mut read: impl FnMut(&mut Parser<'a>, &str) -> Result<V, JsonError>,
    ) -> Result<Vec<Member<'a, V>>, JsonError> {
        let mut members = Vec::with_capacity(16);
        self.space();
        if self.next() != Some(b'{') {
            return Err(JsonError { why: Why::NotAnObject, at: 0 });
        }
        self.levels -= 1;
        self.each(b'}', |parser| {
            let key = parser.key()?;
            parser.space();
            let start = parser.at;
            let value = read(parser, &key)?;
            members.push(Member { key, range: start..parser.at, value });
            Ok(())
        })?;
        self.end()?;
        Ok(members)
    }

    fn error<T>(&self, why: Why) -> Result<T, JsonError> {
        Err(JsonError { why, at: self.at })
    }

    /// An error at the byte that was read last, or at the end.
    fn unexpected<T>(&self, byte: Option<u8>) -> Result<T, JsonError> {
        self.error(if byte.is_none() { Why::End } else { Why::Syntax })
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { self.error(Why::Trailing) }
    }

    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.space();
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Value::String)
            }
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            other => self.unexpected(other),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value<'a>, JsonError>) -> Result<Value<'a>, JsonError> {
        let Some(levels) = self.levels.checked_sub(1) else {
            return self.error(Why::TooDeep);
        };
        self.at += 1;
        self.levels = levels;
        let value = read(self)?;
        self.levels += 1;
        Ok(value)
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        match self.bytes.get(self.at..self.at + word.len()) {
            Some(there) if there == word.as_bytes() => {
                self.at += word.len();
                Ok(value)
            }
            Some(_) => self.error(Why::Syntax),
            None => self.error(Why::End),
        }
    }

    /// What stands between brackets, separated by commas.
    fn each(&mut self, close: u8, mut read: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            read(self)?;
            self.space();
            match self.next() {
                Some(b',') => {}
                Some(byte) if byte == close => return Ok(()),
                other => return self.unexpected(other),
            }
        }
    }

    fn array(&mut self) -> Result<Value<'a>, JsonError> {
        let mut items = Vec::new();
        self.each(b']', |parser| {
            items.push(parser.value()?);
            Ok(())
        })?;
        Ok(Value::Array(items))
    }

    fn object(&mut self) -> Result<Value<'a>, JsonError> {
        let mut members = Vec::new();
        self.each(b'}', |parser| {
            let key = parser.key()?;
            members.push((key, parser.value()?));
            Ok(())
        })?;
        if self.lenient {
            let (object, twice) = Object::from_members_lenient(members);
            self.odd |= twice;
            return Ok(Value::Object(object));
        }
        match Object::from_members(members) {
            Ok(object) => Ok(Value::Object(object)),
            Err(key) => self.error(Why::DuplicateKey(key)),
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.space();
        match self.next() {
            Some(b'"') => {}
            other => return self.unexpected(other),
        }
        let key = self.string()?;
        self.space();
        match self.next() {
            Some(b':') => Ok(key),
            other => self.unexpected(other),
        }
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let begin = self.at;
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let start = self.at;
        let mut n: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            n = n.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let leading_zero = self.bytes.get(start) == Some(&b'0');
        match self.at - start {
            0 => return self.unexpected(self.peek()),
            1 => {}
            _ if leading_zero => return self.error(Why::Syntax),
            _ => {}
        }
        let is_float = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        if is_float && !self.lenient {
            return self.error(Why::Float);
        }
        if is_float || (n > MAX_INT && self.lenient) {
            return self.wide(begin);
        }
        if n > MAX_INT {
            return self.error(Why::IntegerRange);
        }
        if negative && n == 0 && !self.lenient {
            return self.error(Why::NegativeZero);
        }
        self.odd |= negative && n == 0;
        Ok(Value::Int(if negative { -n } else { n }))
    }

    /// A number of an old room, from after its integer part. It must be finite as a double, be it an integer or not.
    fn wide(&mut self, begin: usize) -> Result<Value<'a>, JsonError> {
        self.odd = true;
        let integer = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(begin..self.at).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() && self.at == integer => Ok(Value::Wide(text.into())),
            Ok(n) if n.is_finite() => Ok(Value::Wide(float::repr(n).into())),
            _ => self.error(Why::NumberRange),
        }
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { self.unexpected(self.peek()) }
    }

    /// The rest of a string whose opening quote was read.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        self.at += plain_len(self.bytes.get(start..).unwrap_or_default());
        let plain = self.text.get(start..self.at).unwrap_or_default();
        match self.next() {
            Some(b'"') => Ok(Cow::Borrowed(plain)),
            Some(b'\\') => self.escaped(plain.to_owned()).map(Cow::Owned),
            Some(_) => self.error(Why::ControlCharacter),
            None => self.error(Why::End),
        }
    }

    /// The rest of a string, from after its first backslash.
    fn escaped(&mut self, mut out: String) -> Result<String, JsonError> {
        loop {
            let c = match self.next() {
                Some(b'"') => '"',
                Some(b'\\') => '\\',
                Some(b'/') => '/',
                Some(b'b') => '\u{8}',
                Some(b't') => '\t',
                Some(b'n') => '\n',
                Some(b'f') => '\u{c}',
                Some(b'r') => '\r',
                Some(b'u') => self.unicode()?,
                other => return self.unexpected(other),
            };
            out.push(c);
            let start = self.at;
            self.at += plain_len(self.bytes.get(start..).unwrap_or_default());
            out.push_str(self.text.get(start..self.at).unwrap_or_default());
            match self.next() {
                Some(b'"') => return Ok(out),
                Some(b'\\') => {}
                Some(_) => return self.error(Why::ControlCharacter),
                None => return self.error(Why::End),
            }
        }
    }

    /// The character of `\uXXXX`, or of a surrogate pair of two of them.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let high = first.wrapping_sub(0xD800);
        if high < 0x400 && self.next() == Some(b'\\') && self.next() == Some(b'u') {
            let low = self.hex()?.wrapping_sub(0xDC00);
            if low < 0x400
                && let Some(c) = char::from_u32(0x1_0000 + (high << 10) + low)
            {
                return Ok(c);
            }
        }
        self.error(Why::LoneSurrogate)
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let mut n = 0;
        for _ in 0..4 {
            match self.next() {
                Some(byte) => match char::from(byte).to_digit(16) {
                    Some(digit) => n = n * 16 + digit,
                    None => return self.error(Why::Syntax),
                },
                None => return self.error(Why::End),
            }
        }
        Ok(n)
    }

    /// Steps over a value of trusted bytes.
    fn skip(&mut self) -> Result<(), JsonError> {
        let mut open = 0_u32;
        loop {
            match self.next() {
                Some(b'"') => self.skip_string()?,
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => match open.checked_sub(1) {
                    Some(still) => open = still,
                    None => return self.error(Why::Syntax),
                },
                Some(_) => {}
                None => return self.error(Why::End),
            }
            let ended = open == 0 && matches!(self.peek(), None | Some(b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t'));
            if ended {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), JsonError> {
        loop {
            self.at += plain_len(self.bytes.get(self.at..).unwrap_or_default());
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => {
                    self.next();
                }
                Some(_) => {}
                None => return self.error(Why::End),
            }
        }
    }
}

/// Our tree over a tree of `serde_json`.
pub(super) fn from_serde(value: &serde_json::Value, levels: u8) -> Result<Value<'_>, JsonError> {
    let error = |why| JsonError { why, at: 0 };
    let inner = || levels.checked_sub(1).ok_or(error(Why::TooDeep));
    Ok(match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) if n.is_f64() => return Err(error(Why::Float)),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(n) if (-MAX_INT..=MAX_INT).contains(&n) => Value::Int(n),
            _ => return Err(error(Why::IntegerRange)),
        },
        serde_json::Value::String(text) => Value::String(Cow::Borrowed(text)),
        serde_json::Value::Array(items) => {
            let levels = inner()?;
            Value::Array(items.iter().map(|item| from_serde(item, levels)).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(map) => {
            let levels = inner()?;
            let members = map
                .iter()
                .map(|(k, v)| Ok((Cow::Borrowed(k.as_str()), from_serde(v, levels)?)))
                .collect::<Result<Vec<_>, JsonError>>()?;
            Value::Object(Object::from_members(members).map_err(|key| error(Why::DuplicateKey(key)))?)
        }
    })
}
