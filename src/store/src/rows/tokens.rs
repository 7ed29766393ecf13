//! Access and refresh tokens, by the SHA-256 of the token: the tokens themselves are nowhere.

use crate::{Tx, UserNo, cbor_value, schema};

/// The SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// An access token.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct AccessToken {
    /// Whose.
    #[n(0)]
    pub user: UserNo,
    /// The device that it belongs to.
    #[n(1)]
    pub device: String,
    /// When it ends, in milliseconds since 1970.
    #[n(2)]
    pub expires: Option<u64>,
    /// The refresh token that was issued with it.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub refresh: Option<TokenHash>,
    /// Whether it came from `/refresh` and nobody has used it yet: what came before it holds until then.
    #[n(4)]
    pub fresh: bool,
}
cbor_value!(AccessToken);

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct RefreshToken {
    /// Whose.
    #[n(0)]
    pub user: UserNo,
    /// The device that it belongs to.
    #[n(1)]
    pub device: String,
    /// The access token that was issued with it.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub access: TokenHash,
}
cbor_value!(RefreshToken);

/// In the list of a device's tokens: what kind of token it is.
pub const ACCESS: u8 = 0;
/// The other kind.
pub const REFRESH: u8 = 1;

/// Writes an access token.
pub fn put_access(tx: &mut Tx, hash: &TokenHash, row: &AccessToken) {
    tx.put(&schema::ACCESS_TOKENS, hash, row);
    tx.put(&schema::DEVICE_TOKENS, &(row.user, row.device.clone(), *hash), &ACCESS);
}

/// Writes a refresh token.
pub fn put_refresh(tx: &mut Tx, hash: &TokenHash, row: &RefreshToken) {
    tx.put(&schema::REFRESH_TOKENS, hash, row);
    tx.put(&schema::DEVICE_TOKENS, &(row.user, row.device.clone(), *hash), &REFRESH);
}

/// Removes a token of either kind.
pub fn delete(tx: &mut Tx, user: UserNo, device: &str, hash: &TokenHash, kind: u8) {
    if kind == ACCESS {
        tx.delete(&schema::ACCESS_TOKENS, hash);
    } else {
        tx.delete(&schema::REFRESH_TOKENS, hash);
    }
    tx.delete(&schema::DEVICE_TOKENS, &(user, device.to_owned(), *hash));
}
