//! stoa-view
