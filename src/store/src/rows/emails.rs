//! E-mail: whose address is whose, what is being validated, and letters that are still to be sent.

use crate::{Tx, UserNo, cbor_value, schema};

/// An address of somebody.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Email {
    /// When it was shown to be theirs, in milliseconds since 1970.
    #[n(0)]
    pub validated: u64,
    /// When it was added.
    #[n(1)]
    pub added: u64,
}
cbor_value!(Email);

/// Somebody who shows that an address is theirs (Client-Server API, "Adding Account Administrative Contact Information").
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct EmailSession {
    /// The address.
    #[n(0)]
    pub address: String,
    /// What for: `register`, `add` or `password`.
    #[n(1)]
    pub purpose: String,
    /// The hash of what the client alone knows.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: Vec<u8>,
    /// The hash of what stands in the letter.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub token: Vec<u8>,
    /// The last attempt that sent a letter.
    #[n(4)]
    pub attempt: u64,
    /// Who asked, where it was somebody who is logged in.
    #[n(5)]
    pub user: Option<UserNo>,
    /// Where to go from the page that the letter leads to.
    #[n(6)]
    pub next: Option<String>,
    /// When the link of the letter was followed, in milliseconds since 1970.
    #[n(7)]
    pub validated: Option<u64>,
    /// Until when all this can be used, in milliseconds since 1970.
    #[n(8)]
    pub expires: u64,
}
cbor_value!(EmailSession);

/// A letter that is still to be sent.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Letter {
    /// To whom.
    #[n(0)]
    pub to: String,
    /// What it is about: the purpose of a session.
    #[n(1)]
    pub about: String,
    /// The languages that its reader wants, as `Accept-Language` says them.
    #[n(2)]
    pub languages: String,
    /// Where it leads to.
    #[n(3)]
    pub link: String,
    /// How often it was tried.
    #[n(4)]
    pub tries: u32,
    /// Until when it is worth sending, in milliseconds since 1970.
    #[n(5)]
    pub expires: u64,
}
cbor_value!(Letter);

/// Begins or goes on with a session.
pub fn put_session(tx: &mut Tx, id: &str, session: &EmailSession) {
    tx.put(&schema::EMAIL_SESSIONS, &id.to_owned(), session);
}

/// Ends a session.
pub fn delete_session(tx: &mut Tx, id: &str) {
    tx.delete(&schema::EMAIL_SESSIONS, &id.to_owned());
}

/// Gives an address to somebody. It must be nobody else's.
pub fn put(tx: &mut Tx, user: UserNo, address: &str, email: &Email) {
    tx.put(&schema::EMAILS, &(user, address.to_owned()), email);
    tx.put(&schema::EMAIL_OWNERS, &address.to_owned(), &user);
}

/// Takes an address from somebody.
pub fn delete(tx: &mut Tx, user: UserNo, address: &str) {
    tx.delete(&schema::EMAILS, &(user, address.to_owned()));
    tx.delete(&schema::EMAIL_OWNERS, &address.to_owned());
}

/// Notes a letter that is to be sent at `due`, in milliseconds since 1970.
pub fn put_letter(tx: &mut Tx, due: u64, id: &str, letter: &Letter) {
    tx.put(&schema::LETTERS, &(due, id.to_owned()), letter);
}

/// Forgets a letter: it was sent, or cannot be.
pub fn delete_letter(tx: &mut Tx, due: u64, id: &str) {
    tx.delete(&schema::LETTERS, &(due, id.to_owned()));
}
