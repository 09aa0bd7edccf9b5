//! How fast the classifier reads plain logs and dumps: `cargo run --release -p goscope-formats --example classifier_speed`.
#![expect(clippy::disallowed_methods, reason = "a benchmark needs a clock")]
#![expect(clippy::print_stdout, reason = "its answer")]

use std::fmt::Write as _;
use std::time::Instant;

use goscope_formats::{Classifier, Timestamp};

const BYTES: usize = 256 << 20;
const CHUNK: usize = 64 << 10;

fn main() {
    let plain = "2026/11/23 18:47:05 INFO request served method=GET path=/cart status=200 bytes=5120 duration=1.25ms user=4711\n";
    let short = "ready\n";
    let json = "{\"time\":\"2026-11-23T18:47:05Z\",\"level\":\"INFO\",\"msg\":\"request served\",\"path\":\"/cart\",\"status\":200}\n";
    let near = "fetched goroutine panic runtime stack of nothing at all, said the handler\n";
    row("plain log lines", &repeat(plain));
    row("JSON log lines", &repeat(json));
    row("lines of 6 bytes", &repeat(short));
    row("lines that start with f", &repeat(near));
    row("dump, 3 unique stacks", &dump(3, false));
    row("dump, 3 unique stacks, level 2", &dump(3, true));
    row("dump, 5000 unique stacks", &dump(5000, false));
}

/// The best of five runs, as one of them is the least disturbed.
fn row(name: &str, text: &[u8]) {
    let mut best = 0.0_f64;
    let mut found = 0;
    for _ in 0..5 {
        let start = Instant::now();
        let mut classifier = Classifier::new();
        found = 0;
        for chunk in text.chunks(CHUNK) {
            found += classifier.push(chunk, Timestamp(0)).len();
        }
        found += classifier.finish(Timestamp(0)).len();
        best = best.max(text.len() as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    println!("{name:32} {best:6.2} GB/s, {found} incidents");
}

fn repeat(line: &str) -> Vec<u8> {
    line.repeat(BYTES / line.len()).into_bytes()
}

/// A dump of as many goroutines as fit into one incident.
fn dump(unique: usize, detailed: bool) -> Vec<u8> {
    let mut text = String::from("panic: boom\n\n");
    let mut id = 0_usize;
    while text.len() < 60 << 20 {
        id += 1;
        let state = ["chan receive", "select", "IO wait, 3 minutes"][id % 3];
        writeln!(text, "goroutine {id} [{state}]:").unwrap();
        for depth in 0..12 {
            let at = id * 64 + depth;
            writeln!(
                text,
                "example.com/shop/internal/worker.(*Pool).run{}(0xc000{at:06x}, {{0xc000{at:06x}, 0x3, 0x8}}, 0x0?)",
                id % unique
            )
            .unwrap();
            write!(text, "\t/src/shop/internal/worker/pool.go:{} +0x1d", 100 + depth).unwrap();
            if detailed {
                write!(text, " fp=0xc000{at:06x} sp=0xc000{at:06x} pc=0x43580c").unwrap();
            }
            text.push('\n');
        }
        text.push_str("created by example.com/shop/internal/worker.(*Pool).start in goroutine 1\n\t/src/shop/internal/worker/pool.go:55 +0x2f\n\n");
    }
    text.into_bytes()
}
