//! Dense numbers that stand for long names inside the store, and the position in the one order of commits.

use std::fmt;

use crate::{Error, codec::KeyPart, value::Value};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($t:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $t);

        impl $name {
            /// The least.
            pub const MIN: Self = Self(<$t>::MIN);
            /// The greatest.
            pub const MAX: Self = Self(<$t>::MAX);
        }

        impl KeyPart for $name {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }
            fn read(bytes: &mut &[u8]) -> Result<Self, Error> {
                <$t>::read(bytes).map(Self)
            }
        }

        impl Value for $name {
            fn to_bytes(&self) -> bytes::Bytes {
                self.0.to_bytes()
            }
            fn from_bytes(bytes: bytes::Bytes) -> Result<Self, Error> {
                <$t>::from_bytes(bytes).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

numbers! {
    /// A place in the one order of commits. Every event and every other change that a client may be told of has one;
    /// the position of the last commit is the sync token.
    Position(u64);
    /// A room, on this server.
    RoomNo(u32);
    /// A user, local or not, on this server.
    UserNo(u32);
    /// An event within its room: dense, in the order in which this server came to know them.
    EventNo(u32);
    /// A pair of event type and state key within a room: dense.
    StateKeyNo(u32);
}

impl Position {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}
