//! LexiVersion: integers as strings whose plain order is numeric order
//! (`docs/spec/sync-protocol.md` §6.1).

/// Encodes `n` as its base-36 digits after one base-36 digit that holds their number less one.
pub fn encode(n: u64) -> String {
    // 2^64 has 13 base-36 digits.
    let mut digits = [0u8; 14];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        digits[at] = digit((rest % 36) as u8);
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    let mut out = String::with_capacity(digits.len() - at + 1);
    out.push(digit((digits.len() - at - 1) as u8) as char);
    out.extend(digits[at..].iter().map(|d| *d as char));
    out
}

/// Decodes what [`encode`] made; `None` for anything else, numbers above 2^64-1 included.
pub fn decode(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (first, digits) = bytes.split_first()?;
    let length = value(*first)? as usize + 1;
    if digits.len() != length || (length > 1 && digits[0] == b'0') {
        return None;
    }
    let mut n: u64 = 0;
    for d in digits {
        n = n.checked_mul(36)?.checked_add(value(*d)? as u64)?;
    }
    Some(n)
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'z' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vectors_of_the_specification() {
        for (n, text) in [
            (0, "00"),
            (10, "0a"),
            (35, "0z"),
            (36, "110"),
            (1295, "1zz"),
            (1296, "2100"),
            (46655, "2zzz"),
            (1_000_000, "3lfls"),
            (1 << 32, "61z141z4"),
            ((1 << 53) - 1, "a2gosa7pa2gv"),
            (u64::MAX, "c3w5e11264sgsf"),
        ] {
            assert_eq!(encode(n), text);
            assert_eq!(decode(text), Some(n));
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "0", "1a", "000", "101", "0A", "0-", "d00000000000000", "c3w5e11264sgsg", "é0"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn string_order_is_numeric_order(a: u64, b: u64) {
            prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(&b));
            prop_assert_eq!(decode(&encode(a)), Some(a));
        }
    }
}
