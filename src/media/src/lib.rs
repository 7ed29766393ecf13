//! stoa-media
