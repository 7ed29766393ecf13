//! Values: a version byte, then named (numbered) fields that later releases may add to.

use bytes::Bytes;

use crate::{Corrupt, Error};

/// Something that a table holds.
pub trait Value: Sized {
    /// Its bytes.
    fn to_bytes(&self) -> Bytes;

    /// From the bytes that [`Value::to_bytes`] made, in this release or an older one.
    ///
    /// # Errors
    /// [`Error::Corrupt`], where they are something else.
    fn from_bytes(bytes: Bytes) -> Result<Self, Error>;
}

impl Value for () {
    fn to_bytes(&self) -> Bytes {
        Bytes::new()
    }
    fn from_bytes(_: Bytes) -> Result<Self, Error> {
        Ok(())
    }
}

impl Value for Bytes {
    fn to_bytes(&self) -> Bytes {
        self.clone()
    }
    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        Ok(bytes)
    }
}

impl Value for String {
    fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        String::from_utf8(bytes.to_vec()).map_err(|_| Corrupt("a value is not UTF-8").into())
    }
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Value for $t {
            fn to_bytes(&self) -> Bytes {
                Bytes::copy_from_slice(&self.to_be_bytes())
            }
            fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
                let raw = bytes[..].try_into().map_err(|_| Corrupt("a number has the wrong length"))?;
                Ok(<$t>::from_be_bytes(raw))
            }
        }
    )*};
}
numbers!(u8, u32, u64);

/// Writes a value as version byte 1 and CBOR.
pub fn to_cbor<T: minicbor::Encode<()>>(value: &T) -> Bytes {
    let mut out = vec![1];
    // Writing into a Vec cannot fail.
    let _ = minicbor::encode(value, &mut out);
    out.into()
}

/// Reads what [`to_cbor`] wrote.
///
/// # Errors
/// [`Error::Corrupt`]
pub fn from_cbor<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((1, rest)) => {
            minicbor::decode(rest).map_err(|_| Corrupt("a value does not have the shape of its table").into())
        }
        _ => Err(Corrupt("a value was written by a newer release").into()),
    }
}

/// Makes a type that derives minicbor's `Encode` and `Decode` a [`Value`]. Give every field a number, never use a number
/// twice, and make every field that is added later an `Option` or `#[cbor(default)]`.
#[macro_export]
macro_rules! cbor_value {
    ($($t:ty),* $(,)?) => {$(
        impl $crate::Value for $t {
            fn to_bytes(&self) -> bytes::Bytes {
                $crate::value::to_cbor(self)
            }
            fn from_bytes(bytes: bytes::Bytes) -> Result<Self, $crate::Error> {
                $crate::value::from_cbor(&bytes)
            }
        }
    )*};
}
