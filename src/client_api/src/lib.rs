//! stoa-client-api
