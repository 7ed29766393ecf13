//! stoa-rooms
