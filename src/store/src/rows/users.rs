//! The people of this server: their accounts, passwords and profiles.

use bytes::Bytes;

use crate::{Tx, UserNo, cbor_value, schema, tx::Fact};

/// An account.
#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct User {
    /// When it was made, in milliseconds since 1970.
    #[n(0)]
    pub created: u64,
    /// Whether its owner administers this server.
    #[n(1)]
    pub admin: bool,
    /// When it was deactivated; its name is never given out again.
    #[n(2)]
    pub deactivated: Option<u64>,
    /// Whether its owner asked to be forgotten when it was deactivated.
    #[n(3)]
    pub erased: bool,
    /// Whether an administrator locked it: its tokens hold, but nothing can be done with them.
    #[n(4)]
    #[cbor(default)]
    pub locked: bool,
    /// Whether an administrator suspended it: its owner can read and leave, and not speak.
    #[n(5)]
    #[cbor(default)]
    pub suspended: bool,
    /// Whether it is a guest's, which has no password.
    #[n(6)]
    #[cbor(default)]
    pub guest: bool,
    /// The documents that its owner agreed to when it was made: name and version of each, as `terms_of_service 1.2`.
    #[n(7)]
    #[cbor(default)]
    pub agreed: Vec<String>,
}
cbor_value!(User);

/// Writes an account.
pub fn put(tx: &mut Tx, user: UserNo, row: &User) {
    tx.put(&schema::USERS, &user, row);
    tx.tell(move |_| Fact::Profile { user });
}

/// Writes an account that must not be there yet: the commit fails with a conflict if it is.
pub fn create(tx: &mut Tx, user: UserNo, row: &User) {
    tx.assert(&schema::USERS, &user, None);
    put(tx, user, row);
}

/// Sets the password: a hash in PHC form.
pub fn put_password(tx: &mut Tx, user: UserNo, phc: &str) {
    tx.put(&schema::PASSWORDS, &user, &phc.to_owned());
}

/// Takes the password away: nobody can log in with one then.
pub fn delete_password(tx: &mut Tx, user: UserNo) {
    tx.delete(&schema::PASSWORDS, &user);
}

/// Sets a field of the profile to a JSON value, or removes it.
pub fn put_profile_field(tx: &mut Tx, user: UserNo, field: &str, json: Option<&Bytes>) {
    let key = (user, field.to_owned());
    match json {
        Some(json) => tx.put(&schema::PROFILES, &key, json),
        None => tx.delete(&schema::PROFILES, &key),
    }
    tx.tell(move |_| Fact::Profile { user });
}

/// Forgets the whole profile.
pub fn delete_profile(tx: &mut Tx, user: UserNo) {
    tx.delete_prefix(&schema::PROFILES, &user);
    tx.tell(move |_| Fact::Profile { user });
}
