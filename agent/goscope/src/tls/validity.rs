//! Until when a certificate is valid: the one field of X.509 that rustls checks but does not tell.
//!
//! RFC 5280, section 4.1: `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serialNumber, signature, issuer, validity SEQUENCE
//! { notBefore, notAfter }, … }, … }` in DER.

use jiff::Timestamp;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// "Has no well-defined end", section 4.1.2.5.
const NO_END: &str = "99991231235959Z";

/// `notAfter`; `None` if this is no certificate.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (mut rest, _) = expect(SEQUENCE, expect(SEQUENCE, der)?.0)?;
    if rest.first() == Some(&VERSION) {
        rest = expect(VERSION, rest)?.1;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = expect(tag, rest)?.1;
    }
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (_, _, end) = element(validity)?;
    match element(end)? {
        (UTC_TIME, text, _) => {
            let text = std::str::from_utf8(text).ok()?;
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            time(&format!("{century}{text}"))
        }
        (GENERALIZED_TIME, text, _) => time(std::str::from_utf8(text).ok()?),
        _ => None,
    }
}

/// `YYYYMMDDHHMMSSZ`.
fn time(text: &str) -> Option<Timestamp> {
    if text == NO_END {
        return Some(Timestamp::MAX);
    }
    let digits =
        text.strip_suffix('Z').filter(|digits| digits.len() == 14 && digits.bytes().all(|b| b.is_ascii_digit()))?;
    let part = |at: usize, length: usize| digits.get(at..at + length);
    format!("{}-{}-{}T{}:{}:{}Z", part(0, 4)?, part(4, 2)?, part(6, 2)?, part(8, 2)?, part(10, 2)?, part(12, 2)?)
        .parse()
        .ok()
}

/// Content and rest of the first element, which must have this tag.
fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and rest of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // A file has at most a MiB, so three bytes of length are enough.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head: Vec<u8> = match length {
            0..0x80 => vec![u8::try_from(length).unwrap()],
            _ => [&[0x83], &u32::try_from(length).unwrap().to_be_bytes()[1..]].concat(),
        };
        [&[tag], head.as_slice(), content].concat()
    }

    /// The least that has the shape of a certificate.
    fn certificate(version: bool, end: &[u8]) -> Vec<u8> {
        let validity = tlv(SEQUENCE, &[tlv(UTC_TIME, b"200101000000Z"), end.to_vec()].concat());
        let version = if version { tlv(VERSION, &tlv(INTEGER, &[2])) } else { Vec::new() };
        let issuer = tlv(SEQUENCE, &[0; 300]);
        let inner = [version, tlv(INTEGER, &[1]), tlv(SEQUENCE, &[]), issuer, validity].concat();
        tlv(SEQUENCE, &tlv(SEQUENCE, &inner))
    }

    #[test]
    fn ends() {
        for (tag, text, expected) in [
            (UTC_TIME, "270203040506Z", Some("2027-02-03T04:05:06Z")),
            (UTC_TIME, "490101000000Z", Some("2049-01-01T00:00:00Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "20610101000000Z", Some("2061-01-01T00:00:00Z")),
            (GENERALIZED_TIME, NO_END, Some("9999-12-30T22:00:00.999999999Z")),
            (UTC_TIME, "271303040506Z", None),
            (UTC_TIME, "2702030405Z", None),
            (UTC_TIME, "270203040506+0100", None),
            (UTC_TIME, "\u{fc}0203040506Z", None),
            (INTEGER, "270203040506Z", None),
        ] {
            for version in [true, false] {
                let found = not_after(&certificate(version, &tlv(tag, text.as_bytes())));
                assert_eq!(found, expected.map(|time| time.parse().unwrap()), "{text}");
            }
        }
    }

    #[test]
    fn whatever_is_cut_off_or_turned_is_no_certificate_and_no_panic() {
        let whole = certificate(true, &tlv(UTC_TIME, b"270203040506Z"));
        for end in 0..whole.len() {
            assert_eq!(not_after(&whole[..end]), None, "{end}");
        }
        for place in 0..whole.len() {
            for byte in [0, 0x7f, 0x80, 0x83, 0x84, 0xff] {
                let mut turned = whole.clone();
                turned[place] = byte;
                // Any answer will do, as long as there is one.
                std::hint::black_box(not_after(&turned));
            }
        }
    }
}
