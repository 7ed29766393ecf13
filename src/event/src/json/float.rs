//! Floats as Python writes them: canonical JSON of room versions 1 to 5 was made by Python programs.

/// What Python's `repr` gives: the fewest digits that lead back to the number, an exponent where it is below -4 or from 16
/// on, and otherwise a point with at least one digit behind it.
pub(super) fn repr(n: f64) -> String {
    let form = digits_of(n);
    let (mantissa, exponent) = form.split_once('e').unwrap_or((&form, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    if !(-4..16).contains(&exponent) {
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{direction}{:02}", exponent.unsigned_abs());
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let before = exponent as usize + 1;
    match digits.split_at_checked(before) {
        Some((whole, rest)) if !rest.is_empty() => format!("{sign}{whole}.{rest}"),
        _ => format!("{sign}{digits:0<before$}.0"),
    }
}

/// The fewest digits that lead back to the number, in the form `1.25e7`. Where two numbers of so many digits are equally near,
/// Rust takes the greater and Python the even one: that is what rounding the exact value to so many digits gives.
fn digits_of(n: f64) -> String {
    let shortest = format!("{n:e}");
    let count = shortest.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    let rounded = format!("{n:.*e}", count.saturating_sub(1));
    // Beside a power of two the nearest of so many digits may lead elsewhere.
    if rounded.parse() == Ok(n) { rounded } else { shortest }
}

#[cfg(test)]
mod tests {
    use super::repr;

    #[test]
    fn as_python_writes_them() {
        for (n, text) in [
            ("0e0", "0.0"),
            ("-0.0", "-0.0"),
            ("1", "1.0"),
            ("-1.5", "-1.5"),
            ("50.57", "50.57"),
            ("1e3", "1000.0"),
            ("123456.789", "123456.789"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("123456789012345678.5", "1.2345678901234568e+17"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("1e100", "1e+100"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("0.1", "0.1"),
            ("1766693607303915.25", "1766693607303915.2"),
            ("1766693607303915.75", "1766693607303915.8"),
            ("0.0001", "0.0001"),
            ("0.00012345", "0.00012345"),
            ("0.00001", "1e-05"),
            ("-1.5e-7", "-1.5e-07"),
            ("5e-324", "5e-324"),
            ("2.2250738585072014e-308", "2.2250738585072014e-308"),
            ("5.684341886080802e-14", "5.684341886080802e-14"),
        ] {
            assert_eq!(repr(n.parse().unwrap()), text);
        }
    }
}
