//! The streams that `shop -noise` writes, made again from their definition.

use std::fmt::Write;

/// What `shop -noise random:N` writes: a xorshift64* generator with seed 1, of each value the high byte.
#[must_use]
pub fn random(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..len)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
        })
        .collect()
}

/// What `shop -noise lines:N` writes.
#[must_use]
pub fn lines(count: u64) -> String {
    let mut text = String::new();
    for i in 0..count {
        line(&mut text, i);
    }
    text
}

/// Line `i` of `shop -noise lines` and `-noise steady`, with its LF.
pub fn line(text: &mut String, i: u64) {
    writeln!(
        text,
        "seq={i} level=info msg=\"order booked\" customer=c{} sku=sku-{:04} cents={}",
        i % 97,
        i % 311,
        199 + i % 9000
    )
    .expect("a String takes everything");
}
