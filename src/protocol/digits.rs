//! Decimal numbers on the wire, read strictly.

/// The most digits nats-server reads in a size (`parseSize`): larger ones are errors whatever they say.
const SIZE_DIGITS_MAX: usize = 9;

/// Reads a size: one to nine decimal digits and nothing else, as nats-server's `parseSize`.
#[inline]
pub(super) fn parse_size(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > SIZE_DIGITS_MAX {
        return None;
    }
    let mut value = 0usize;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + digit as usize;
    }
    Some(value)
}

/// Reads a count of any length; one past `u64::MAX` is `u64::MAX`. `None` when it is not all digits.
pub(super) fn parse_count(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9).then(|| value.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_to_nine_digits() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5", Some(5)),
            ("05", Some(5)),
            ("999999999", Some(999_999_999)),
            ("000000005", Some(5)),
            ("", None),
            ("-1", None),
            ("+5", None),
            ("0x5", None),
            ("5 ", None),
            ("1e3", None),
            ("2147483648", None),
            ("0000000005", None),
            ("9223372036854775808", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_size(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn counts_saturate() {
        for (text, expected) in [
            ("0", Some(0)),
            ("9999999999", Some(9_999_999_999)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("", None),
            ("-1", None),
            ("1x", None),
        ] {
            assert_eq!(parse_count(text.as_bytes()), expected, "{text:?}");
        }
    }
}
