//! Free TCP ports on 127.0.0.1.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
/// Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port between our look and its use.
const COUNT: u16 = 12_000;

/// A port that nobody listens on and that this process has not handed out before.
///
/// # Panics
/// Every port of the range is taken.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 97).expect("below 97") * (COUNT / 97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
