//! Answers as a person reads them: tables, ages, sizes. What came from an app never drives the terminal.

use goscope_analysis::text::printable;
use jiff::Timestamp;

/// Characters of the last column of a table.
const LAST_CHARS_MAX: usize = 100;

/// Lines of aligned columns, two blanks apart; the last column is cut where it is long. Empty cells show as `-`.
#[must_use]
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if column + 1 == cells.len() {
                line.push_str(&cut(cell, LAST_CHARS_MAX));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
            }
        }
        line.trim_end().to_owned() + "\n"
    };
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    std::iter::once(line(head)).chain(rows).collect()
}

fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { printable(cell).into_owned() }
}

/// At most `chars` characters, with an ellipsis where something was cut.
fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars.saturating_sub(1)).chain(['…']).collect()
}

/// The time from `then`, written as RFC 3339, to `now`: `42s`, `7m`, `5h`, `3d`, as kubectl shows ages. As it was written if it is no time.
#[must_use]
pub(super) fn age(then: &str, now: Timestamp) -> String {
    let Ok(then) = then.parse::<Timestamp>() else { return then.chars().take(40).collect() };
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `512 B`, `1.5 KiB`, `12 MiB`: two significant digits below ten, whole units above.
#[must_use]
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = bytes;
    let mut tenths = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        tenths = (scaled % 1024) * 10 / 1024;
        scaled /= 1024;
        unit += 1;
    }
    if unit > 0 && scaled < 10 {
        format!("{scaled}.{tenths} {}", UNITS[unit])
    } else {
        format!("{scaled} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let rows = [
            vec!["42s".to_owned(), "panic".to_owned(), "boom\nat main".to_owned()],
            vec!["2d".to_owned(), String::new(), "x".repeat(101)],
        ];
        let expected = format!("AGE  KIND   REASON\n42s  panic  boom⏎ at main\n2d   -      {}…\n", "x".repeat(99));
        assert_eq!(table(&["AGE", "KIND", "REASON"], &rows), expected);
        assert_eq!(table(&["A"], &[vec!["\x1b[31m".to_owned()]]), "A\n\\u{1b}[31m\n");
        assert_eq!(cut(&"x".repeat(100), 100), "x".repeat(100));
    }

    #[test]
    fn ages() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
        for (then, expected) in [
            ("2026-11-23T12:00:00Z", "0s"),
            ("2026-11-23T12:00:05Z", "0s"),
            ("2026-11-23T11:58:01Z", "119s"),
            ("2026-11-23T11:58:00Z", "2m"),
            ("2026-11-23T10:00:01Z", "119m"),
            ("2026-11-23T10:00:00Z", "2h"),
            ("2026-11-21T12:00:01Z", "47h"),
            ("2026-11-21T12:00:00Z", "2d"),
            ("2026-11-21T14:00:00+02:00", "2d"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(age(then, now), expected, "{then}");
        }
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 10, "10 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (12 << 20, "12 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
