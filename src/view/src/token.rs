//! Tokens: places in the order of commits and on the live bus, or in the history of a room. Nothing about the process: they
//! survive a restart.

use std::fmt;

use stoa_store::{Position, bus::Place};

use crate::Error;

/// Where a client's `/sync` stands: `s<position>_<place>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncToken {
    /// The position of the last commit that was shown.
    pub position: Position,
    /// The place on the live bus up to which was shown.
    pub place: Place,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}", self.position, self.place)
    }
}

impl SyncToken {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], if this server never made it.
    pub fn parse(text: &str) -> Result<SyncToken, Error> {
        let parts = text.strip_prefix('s').and_then(|rest| rest.split_once('_'));
        let read = |(position, place): (&str, &str)| Some((number(position)?, number(place)?));
        let (position, place) = parts.and_then(read).ok_or_else(bad)?;
        Ok(SyncToken { position: Position(position), place })
    }
}

/// Where a connection of sliding sync stands: `p<serial>.<sync token>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingToken {
    /// Which answer of which connection it ends.
    pub serial: u64,
    /// Up to where was shown.
    pub at: SyncToken,
}

impl fmt::Display for SlidingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}.{}", self.serial, self.at)
    }
}

impl SlidingToken {
    /// Reads one; `None`, if this server never made it.
    pub fn parse(text: &str) -> Option<SlidingToken> {
        let (serial, at) = text.strip_prefix('p')?.split_once('.')?;
        Some(SlidingToken { serial: number(serial)?, at: SyncToken::parse(at).ok()? })
    }
}

/// A gap between two events of a room's history, which is ordered by depth and then position: everything up to and with
/// this place is before it. `t<depth>-<position>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryToken {
    /// The depth.
    pub depth: u64,
    /// The position.
    pub position: Position,
}

impl fmt::Display for HistoryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}-{}", self.depth, self.position)
    }
}

impl HistoryToken {
    /// The gap just before the event at this place.
    pub(crate) fn before(self) -> HistoryToken {
        HistoryToken { position: Position(self.position.0.saturating_sub(1)), ..self }
    }
}

/// A token as clients may give it to `/messages`: from either place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyToken {
    /// From `/sync`, or from sliding sync.
    Sync(SyncToken),
    /// From a timeline or from `/messages`.
    History(HistoryToken),
}

impl AnyToken {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], if this server never made it.
    pub fn parse(text: &str) -> Result<AnyToken, Error> {
        if let Some(pos) = SlidingToken::parse(text) {
            return Ok(AnyToken::Sync(pos.at));
        }
        let Some(rest) = text.strip_prefix('t') else { return SyncToken::parse(text).map(AnyToken::Sync) };
        let read = |(depth, position): (&str, &str)| Some((number(depth)?, number(position)?));
        let (depth, position) = rest.split_once('-').and_then(read).ok_or_else(bad)?;
        Ok(AnyToken::History(HistoryToken { depth, position: Position(position) }))
    }
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn bad() -> Error {
    Error::InvalidParam("this token was not made by this server".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let sync = SyncToken { position: Position(12), place: 34 };
        assert_eq!(SyncToken::parse(&sync.to_string()).unwrap(), sync);
        let history = HistoryToken { depth: 5, position: Position(u64::MAX) };
        assert_eq!(AnyToken::parse(&history.to_string()).unwrap(), AnyToken::History(history));
        let pos = SlidingToken { serial: 9, at: sync };
        assert_eq!(SlidingToken::parse(&pos.to_string()), Some(pos));
        assert_eq!(AnyToken::parse(&pos.to_string()).unwrap(), AnyToken::Sync(sync));
        for bad in [
            "",
            "p1",
            "p.s1_2",
            "p1.s1",
            "p-1.s1_2",
            "s",
            "s1",
            "s1_",
            "s+1_2",
            "t1",
            "t1-x",
            "x1_2",
            "s1_2_3",
            "s99999999999999999999_1",
        ] {
            assert!(AnyToken::parse(bad).is_err(), "{bad}");
        }
    }
}
