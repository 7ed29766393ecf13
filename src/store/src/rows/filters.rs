//! Filters that clients stored, numbered for each user.

use bytes::Bytes;

use crate::{Tx, UserNo, schema};

/// Stores a filter under a number that must be free: the commit fails with a conflict if it is not.
pub fn create(tx: &mut Tx, user: UserNo, id: u32, json: &Bytes) {
    tx.assert(&schema::FILTERS, &(user, id), None);
    tx.put(&schema::FILTERS, &(user, id), json);
}

/// Forgets all filters of a user.
pub fn delete_all(tx: &mut Tx, user: UserNo) {
    tx.delete_prefix(&schema::FILTERS, &user);
}
