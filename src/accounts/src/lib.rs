//! stoa-accounts
