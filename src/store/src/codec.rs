//! Keys: values written so that their bytes are in the order of the values.
//!
//! Numbers are big-endian. Strings are terminated (`00 01`) with `00` inside written as `00 FF`, so that a shorter
//! string comes before a longer one and a tuple sorts field by field.

use crate::{Corrupt, Error};

/// Something that a key is made of.
pub trait KeyPart: Sized {
    /// Appends its bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// Takes it off the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Corrupt`], where the bytes are not what `write` makes.
    fn read(bytes: &mut &[u8]) -> Result<Self, Error>;
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], Error> {
    let (head, rest) = bytes.split_at_checked(n).ok_or(Corrupt("a key ends too early"))?;
    *bytes = rest;
    Ok(head)
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl KeyPart for $t {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
                let mut raw = [0; size_of::<$t>()];
                raw.copy_from_slice(take(bytes, size_of::<$t>())?);
                Ok(<$t>::from_be_bytes(raw))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

impl KeyPart for () {
    fn write(&self, _: &mut Vec<u8>) {}
    fn read(_: &mut &[u8]) -> Result<Self, Error> {
        Ok(())
    }
}

impl KeyPart for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
        Ok(u8::read(bytes)? != 0)
    }
}

impl<const N: usize> KeyPart for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
        let mut raw = [0; N];
        raw.copy_from_slice(take(bytes, N)?);
        Ok(raw)
    }
}

/// Writes a string of bytes so that it ends before whatever follows it.
pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

fn read_bytes(bytes: &mut &[u8]) -> Result<Vec<u8>, Error> {
    let mut found = Vec::new();
    loop {
        match take(bytes, 1)?[0] {
            0 => match take(bytes, 1)?[0] {
                0xFF => found.push(0),
                1 => return Ok(found),
                _ => return Err(Corrupt("a key has an unknown escape").into()),
            },
            byte => found.push(byte),
        }
    }
}

impl KeyPart for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
        String::from_utf8(read_bytes(bytes)?).map_err(|_| Corrupt("a key is not UTF-8").into())
    }
}

impl KeyPart for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self, out);
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
        read_bytes(bytes)
    }
}

macro_rules! tuples {
    ($(($($t:ident $n:tt),*)),*) => {$(
        impl<$($t: KeyPart),*> KeyPart for ($($t,)*) {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$n.write(out);)*
            }
            fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
                Ok(($($t::read(bytes)?,)*))
            }
        }
    )*};
}
tuples!((A 0, B 1), (A 0, B 1, C 2), (A 0, B 1, C 2, D 3), (A 0, B 1, C 2, D 3, E 4));

/// The least byte string above everything that begins with `prefix`; `None` if there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes<K: KeyPart>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn keys_come_back_and_keep_their_order(
            a in any::<(u32, String, Vec<u8>, u64)>(),
            b in any::<(u32, String, Vec<u8>, u64)>(),
        ) {
            let (x, y) = (bytes(&a), bytes(&b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            let mut rest = &x[..];
            prop_assert_eq!(<(u32, String, Vec<u8>, u64)>::read(&mut rest).unwrap(), a);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_cut_key_is_an_error_not_a_panic(raw in any::<Vec<u8>>()) {
            let _ = <(u32, String, Vec<u8>, u64)>::read(&mut &raw[..]);
        }
    }
}
