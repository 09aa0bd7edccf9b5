//! The small notations of configuration: durations `15s`, sizes `64MiB`, rates `30/m`, address rules `!10.0.0.0/8`.
//!
//! Each parser's error is a sentence that says what was expected; each `…_text` writes what its parser reads.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::AddressRule;

/// Why a notation was refused: what is expected, and what was found where that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotationError(String);

/// The longest duration that is accepted: 100 years.
pub const DURATION_MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// Longest unit first, so that a duration is written with as few parts as it has.
const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `250ms`, `15s`, `1h30m`, `14d`: integers with units, each unit at most once and the larger first. At most [`DURATION_MAX`].
///
/// # Errors
/// Anything else, also a number without a unit.
pub fn parse_duration(text: &str) -> Result<Duration, NotationError> {
    let refuse =
        || NotationError(format!("expected a duration such as 250ms, 15s, 1h30m or 14d, found {}", quoted(text)));
    let mut rest = text;
    let mut total: u64 = 0;
    let mut below = u64::MAX;
    loop {
        let (number, after) = integer(rest).ok_or_else(refuse)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (name, next) = after.split_at(letters);
        let (_, unit) = DURATION_UNITS.iter().find(|(known, _)| *known == name).ok_or_else(refuse)?;
        if *unit >= below {
            return Err(refuse());
        }
        below = *unit;
        total = number.checked_mul(*unit).and_then(|part| total.checked_add(part)).ok_or_else(refuse)?;
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    let duration = Duration::from_millis(total);
    if duration > DURATION_MAX { Err(refuse()) } else { Ok(duration) }
}

/// `1h30m`; `0s` for nothing. Below a millisecond is cut.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, unit) in DURATION_UNITS {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads `64MiB`, `1GiB`, `512B`: an integer with a binary unit.
///
/// # Errors
/// Anything else; decimal units (`64MB`) are refused with the binary one, because people mean either.
pub fn parse_size(text: &str) -> Result<u64, NotationError> {
    let refuse = || NotationError(format!("expected a size such as 512KiB, 64MiB or 1GiB, found {}", quoted(text)));
    let (number, name) = integer(text).ok_or_else(refuse)?;
    let (_, unit) = SIZE_UNITS.iter().find(|(known, _)| *known == name).ok_or_else(refuse)?;
    number.checked_mul(*unit).ok_or_else(refuse)
}

/// `64MiB`: the largest unit that leaves no fraction.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let (name, unit) =
        SIZE_UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

/// Reads `1/s`, `30/m`, `500/h` into requests per 1000 seconds, rounded down as nginx does: `30/m` is 500, `100/m` is 1666. At least 1.
///
/// # Errors
/// Anything else, zero, and rates above 10,000,000 per second.
pub fn parse_rate(text: &str) -> Result<u64, NotationError> {
    let refuse = || NotationError(format!("expected a rate such as 1/s, 30/m or 500/h, found {}", quoted(text)));
    let (count, per) = integer(text).ok_or_else(refuse)?;
    let seconds = match per {
        "/s" => 1,
        "/m" => 60,
        "/h" => 3600,
        _ => return Err(refuse()),
    };
    let rate = count.checked_mul(1000).ok_or_else(refuse)? / seconds;
    if (1..=10_000_000_000).contains(&rate) { Ok(rate) } else { Err(refuse()) }
}

/// `1/s`, `30/m` or `500/h`: the first notation that reads back as the same rate. A rate that has none is cut to the hour.
#[must_use]
pub fn rate_text(per_kilosecond: u64) -> String {
    for (name, seconds) in [("s", 1), ("m", 60), ("h", 3600)] {
        let count = per_kilosecond.saturating_mul(seconds).div_ceil(1000);
        if count > 0 && count.saturating_mul(1000) / seconds == per_kilosecond {
            return format!("{count}/{name}");
        }
    }
    format!("{}/h", per_kilosecond.saturating_mul(3600) / 1000)
}

/// Reads `10.0.0.0/8`, `::1/128`, `192.168.1.7` (one address), each with `!` in front for deny. IPv4-mapped IPv6 (`::ffff:10.0.0.0/104`)
/// becomes IPv4, because source addresses are compared in that form.
///
/// # Errors
/// Anything else, and a network with bits set behind its prefix, because nobody can tell which was meant.
pub fn parse_address_rule(text: &str) -> Result<AddressRule, NotationError> {
    let (deny, network) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let parsed = match network.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => network.parse::<IpNet>().ok(),
    };
    let Some(net) = parsed else {
        return Err(NotationError(format!(
            "expected a network such as 10.0.0.0/8, ::1/128 or !192.168.0.0/16, found {}",
            quoted(text)
        )));
    };
    if net.addr() != net.network() {
        let prefix = if deny { "!" } else { "" };
        return Err(NotationError(format!(
            "{} has bits set behind its prefix; write {prefix}{} for the network or {prefix}{} for the one address",
            quoted(text),
            net.trunc(),
            net.addr()
        )));
    }
    Ok(AddressRule { network: without_mapping(net), deny })
}

/// `!10.0.0.0/8`.
#[must_use]
pub fn address_rule_text(rule: AddressRule) -> String {
    format!("{}{}", if rule.deny { "!" } else { "" }, rule.network)
}

fn without_mapping(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped: Option<_> = Ipv6Addr::to_ipv4_mapped(&v6.addr());
    let short = v6.prefix_len().checked_sub(96);
    match mapped.zip(short).and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()) {
        Some(v4) => IpNet::V4(v4),
        None => net,
    }
}

/// The decimal integer that `text` begins with, and the rest.
fn integer(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    number.parse().ok().map(|number| (number, rest))
}

fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    if shown.len() < text.len() { format!("{shown:?}…") } else { format!("{shown:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("15s", 15_000, "15s"),
            ("30m", 1_800_000, "30m"),
            ("14d", 1_209_600_000, "14d"),
            ("250ms", 250, "250ms"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("0s", 0, "0s"),
            ("36500d", 3_153_600_000_000, "36500d"),
        ];
        for (text, millis, written) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration_text(Duration::from_millis(millis)), written);
        }
        let bad = [
            "",
            "15",
            "s",
            "15 s",
            "-1s",
            "+1s",
            "1.5s",
            "15S",
            "1m1h",
            "1s1s",
            "36501d",
            "99999999999999999999s",
            "1w",
            "1ss",
            "1µs",
        ];
        for text in bad {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let good =
            [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("512B", 512), ("0B", 0), ("3KiB", 3072), ("2TiB", 2 << 40)];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(size_text(bytes), text);
        }
        for text in ["", "64", "64MB", "64M", "MiB", "1.5GiB", "-1B", "99999999TiB", "64 MiB", "64mib"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_round_as_nginx_does() {
        let good = [
            ("1/s", 1000, "1/s"),
            ("30/m", 500, "30/m"),
            ("500/h", 138, "497/h"),
            ("100/m", 1666, "100/m"),
            ("1/m", 16, "1/m"),
            ("60/m", 1000, "1/s"),
            ("10000000/s", 10_000_000_000, "10000000/s"),
            ("4/h", 1, "4/h"),
        ];
        for (text, rate, written) in good {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
            assert_eq!(rate_text(rate), written, "{text}");
            assert_eq!(parse_rate(&rate_text(rate)), Ok(rate), "{text}");
        }
        for text in
            ["", "1", "0/s", "3/h", "1/d", "-1/s", "1.5/s", "1 /s", "1/S", "10000001/s", "99999999999999999999/s"]
        {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn address_rules() {
        let good = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("!10.0.0.0/8", "!10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("!::ffff:1.2.3.4", "!1.2.3.4/32"),
            ("::/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ];
        for (text, written) in good {
            assert_eq!(parse_address_rule(text).map(address_rule_text).as_deref(), Ok(written), "{text}");
        }
        for text in ["", "!", "10.0.0.1/8", "10.0.0.0/33", "10/8", "localhost", "!!1.2.3.4", "1.2.3.4/", " 1.2.3.4"] {
            assert!(parse_address_rule(text).is_err(), "{text}");
        }
        let mistake = parse_address_rule("!10.0.0.1/8").unwrap_err().to_string();
        assert!(mistake.ends_with("write !10.0.0.0/8 for the network or !10.0.0.1 for the one address"), "{mistake}");
    }
}
