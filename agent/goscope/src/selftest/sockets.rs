//! Which TCP sockets listen, by `/proc/net/tcp` and `/proc/net/tcp6`: pure.
//!
//! A line is `  0: 0100007F:17AC 00000000:0000 0A …`: a number, the socket's own address and port, its peer's, and its state. An address is printed as
//! 32-bit words of the machine's own byte order in hexadecimal, one for IPv4 and four for IPv6 (`net/ipv4/tcp_ipv4.c`, `get_openreq4` and its
//! neighbours). The kernel lists those that listen before all connections, so the bound cuts off none of them that matters.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Lines of one file that are read.
pub(super) const LINES_MAX: usize = 1024;
/// Bytes of one file that are read: lines have at most 200.
pub(super) const BYTES_MAX: u64 = 256 << 10;
/// `TCP_LISTEN`.
const LISTEN: &[u8] = b"0A";

/// The addresses of the sockets that listen, each once; an IPv4 address that is written as IPv6 is taken for what it is. Lines that cannot be understood,
/// as the heading, are passed over.
pub(super) fn listening(text: &[u8]) -> BTreeSet<SocketAddr> {
    text.split(|byte| *byte == b'\n').take(LINES_MAX).filter_map(listener).collect()
}

fn listener(line: &[u8]) -> Option<SocketAddr> {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let (_number, own, _peer, state) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if state != LISTEN {
        return None;
    }
    let colon = own.iter().position(|byte| *byte == b':')?;
    let (address, port) = (own.get(..colon)?, own.get(colon.checked_add(1)?..)?);
    let port = u16::try_from(hexadecimal(port, 4)?).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(ip(address)?.to_canonical(), port))
}

fn ip(digits: &[u8]) -> Option<IpAddr> {
    match digits.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(hexadecimal(digits, 8)?.to_ne_bytes()))),
        32 => {
            let mut bytes = [0; 16];
            for (word, digits) in bytes.chunks_exact_mut(4).zip(digits.chunks_exact(8)) {
                word.copy_from_slice(&hexadecimal(digits, 8)?.to_ne_bytes());
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// A number of exactly `length` hexadecimal digits, at most eight.
fn hexadecimal(digits: &[u8], length: usize) -> Option<u32> {
    // from_str_radix would take a sign.
    let are_digits = digits.len() == length && digits.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| are_digits)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADING: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(own: &str, state: &str) -> String {
        format!(
            "   0: {own} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 561 1 0000000000000000 100 0 0 10 0\n"
        )
    }

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = listening(text.as_bytes()).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }

    /// As a little-endian machine prints them.
    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_of_both_families_are_read() {
        for (own, expected) in [
            ("0100007F:17AC", "127.0.0.1:6060"),
            ("00000000:24F8", "0.0.0.0:9464"),
            ("0101A8C0:0050", "192.168.1.1:80"),
            ("00000000000000000000000000000000:17AC", "[::]:6060"),
            ("00000000000000000000000001000000:17AC", "[::1]:6060"),
            ("B80D0120000000000000000001000000:FFFF", "[2001:db8::1]:65535"),
            ("0000000000000000FFFF00000100007F:17AC", "127.0.0.1:6060"),
            ("0000000000000000FFFF000000000000:17AC", "0.0.0.0:6060"),
        ] {
            check(&format!("{HEADING}{}", line(own, "0A")), &[expected]);
        }
    }

    #[test]
    fn only_those_that_listen_count_each_once() {
        let own = "00000000:17AC";
        check(&format!("{HEADING}{}{}{}", line(own, "0A"), line(own, "01"), line(own, "0A")), &["0.0.0.0:6060"]);
        for state in ["01", "06", "0B", "0a", "A", ""] {
            check(&line(own, state), &[]);
        }
    }

    #[test]
    fn lines_that_cannot_be_understood_are_passed_over() {
        for own in [
            "",
            ":",
            "00000000",
            "00000000:",
            ":17AC",
            "0000000:17AC",
            "000000000:17AC",
            "+0000000:17AC",
            "0000000G:17AC",
            "00000000:17A",
            "00000000:017AC",
            "00000000:+7AC",
            "00000000:0000",
            "0000000000000000:17AC",
            "0000000000000000000000000000000é:17AC",
        ] {
            check(&format!("{}{}", line(own, "0A"), line("00000000:0050", "0A")), &["0.0.0.0:80"]);
        }
        check("0: 00000000:17AC 00000000:0000 0A", &["0.0.0.0:6060"]);
        check("0: 00000000:17AC 00000000:0000", &[]);
        check(HEADING, &[]);
        check("", &[]);
    }

    #[test]
    fn what_is_behind_the_bound_is_not_read() {
        let text = |before: usize| format!("{}{}", "\n".repeat(before), line("00000000:0050", "0A"));
        check(&text(LINES_MAX - 1), &["0.0.0.0:80"]);
        check(&text(LINES_MAX), &[]);
    }

    /// What the kernel prints, not what we believe that it does.
    #[test]
    fn our_own_sockets_are_found() {
        for (address, file) in [("127.0.0.1:0", "/proc/net/tcp"), ("[::1]:0", "/proc/net/tcp6")] {
            // There may be no IPv6 here.
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let text = std::fs::read(file).expect("it is there");
            assert!(listening(&text).contains(&listener.local_addr().expect("an address")), "{file}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(text in prop::collection::vec(any::<u8>(), 0..2000)) {
            listening(&text);
        }

        #[test]
        fn damaged_lines_do_no_harm(text in "( {0,2}[0-9A-F:+é]{0,40} 0A ?\n?){0,8}") {
            listening(text.as_bytes());
        }
    }
}
