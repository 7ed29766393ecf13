//! What counts as an integer in power levels: JSON integers in versions from 10 on, much more before (room version 1,
//! "Deprecated event content schemas").

use serde_json::value::RawValue;

use super::content::text;
use crate::{json::MAX_INT, version::Rules};

/// The most digits that Python reads in a string.
const MAX_DIGITS: usize = 4300;

/// The integer that a level is in a room version, if it is one.
///
/// - From 10 on only JSON integers.
/// - Before, also strings of an integer, and `true` and `false` for 1 and 0.
/// - Before 6, where numbers may be anything, floats too, cut at the point, and integers of any size.
///
/// The text wants strings to be digits with a sign and white space. Synapse, by whose judgement these rooms have their
/// state, takes what Python's `int` takes: booleans, single underscores between digits, and digits of other scripts as well.
/// What is beyond 64 bits counts as the greatest or smallest number of 64 bits.
pub(super) fn integer(rules: &Rules, value: &RawValue) -> Option<i64> {
    let json = value.get();
    let old = !rules.integer_power_levels;
    match json.as_bytes().first()? {
        b'"' if old => of_text(&text(value)?),
        b't' if old => Some(1),
        b'f' if old => Some(0),
        b'-' | b'0'..=b'9' => match json.parse::<i64>() {
            Ok(level) if !rules.strict_json || (-MAX_INT..=MAX_INT).contains(&level) => Some(level),
            Ok(_) => None,
            Err(_) if rules.strict_json => None,
            // A cast from a float cuts and saturates.
            Err(_) => json.parse::<f64>().ok().filter(|level| level.is_finite()).map(|level| level as i64),
        },
        _ => None,
    }
}

/// The integer that Python's `int` reads in a string.
fn of_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mut n, mut count, mut after_digit) = (0_i64, 0_usize, false);
    for c in digits.chars() {
        if c == '_' && after_digit {
            after_digit = false;
            continue;
        }
        let digit = i64::from(digit(c)?);
        n = n.saturating_mul(10);
        n = if negative { n.saturating_sub(digit) } else { n.saturating_add(digit) };
        count += 1;
        after_digit = true;
    }
    (after_digit && count <= MAX_DIGITS).then_some(n)
}

/// The zeros of the scripts that have decimal digits (Unicode category Nd, version 14); the other nine digits follow.
#[rustfmt::skip]
const ZEROS: [u32; 65] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0, 0xF20, 0x1040,
    0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0,
    0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650,
    0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2,
    0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

fn digit(c: char) -> Option<u32> {
    if c.is_ascii() {
        return c.to_digit(10);
    }
    let at = ZEROS.partition_point(|zero| *zero <= u32::from(c));
    let zero = ZEROS.get(at.checked_sub(1)?)?;
    Some(u32::from(c) - zero).filter(|digit| *digit < 10)
}

#[cfg(test)]
mod tests {
    use super::of_text;

    /// What Python 3.11 says.
    #[test]
    fn strings() {
        for (text, n) in [
            ("100", 100),
            ("000100", 100),
            (" +100 ", 100),
            ("\t-100\n", -100),
            ("\u{a0}1", 1),
            ("1\u{b}", 1),
            ("1_0", 10),
            ("-0_1", -1),
            ("0_0", 0),
            ("٣", 3),
            ("1٣", 13),
            ("１２", 12),
            ("𝟿", 9),
            ("9223372036854775807", i64::MAX),
            ("9223372036854775808", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-99999999999999999999999", i64::MIN),
        ] {
            assert_eq!(of_text(text), Some(n), "{text:?}");
        }
        let none = [
            "",
            " ",
            "+",
            "-",
            "+-1",
            "+ 1",
            "_1",
            "1_",
            "1__0",
            "0x10",
            "1.0",
            "1e3",
            "a",
            "\u{1f}1",
            "\u{200b}1",
            "\u{feff}1",
            "½",
            "²",
            "1 0",
        ];
        for text in none {
            assert_eq!(of_text(text), None, "{text:?}");
        }
        assert!(of_text(&"1".repeat(4300)).is_some());
        assert!(of_text(&"1".repeat(4301)).is_none());
    }
}
