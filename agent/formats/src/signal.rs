//! Signal lines: `[signal SIGSEGV: … pc=0x4a]` behind a panic, and the head, notes and registers of a signal dump.
//!
//! Source of the forms: `printpanicval` and `sighandler` in `src/runtime/{panic,signal_unix}.go`, `dumpregs` in `src/runtime/signal_*.go`.

use crate::SignalInfo;
use crate::limits::REASON_BYTES_MAX;
use crate::text::{bounded, decimal, hex, lossy, split_digits, split_once};

/// The first line of a dump, `SIGQUIT: quit`, or `signal 42` where the runtime knows no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) name: &'a [u8],
    /// One of the lines that the runtime is known to print, so that it needs no `PC=` line to be believed at the end of a stream.
    pub(crate) known: bool,
}

/// `src/runtime/sigtab_linux_generic.go`, those that throw or panic.
const KNOWN: [&[u8]; 9] = [
    b"SIGQUIT: quit",
    b"SIGILL: illegal instruction",
    b"SIGTRAP: trace trap",
    b"SIGABRT: abort",
    b"SIGBUS: bus error",
    b"SIGFPE: floating-point exception",
    b"SIGSEGV: segmentation violation",
    b"SIGSTKFLT: stack fault",
    b"SIGSYS: bad system call",
];

pub(crate) fn head(line: &[u8]) -> Option<Head<'_>> {
    if line.starts_with(b"SIG") {
        let (name, text) = split_once(line, b": ")?;
        let plain = name.len() > 3 && name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        return (plain && !text.is_empty()).then(|| Head { name, known: KNOWN.contains(&line) });
    }
    let number = line.strip_prefix(b"signal ").or_else(|| line.strip_prefix(b"Signal "))?;
    decimal(number).map(|_| Head { name: line, known: false })
}

/// `PC=0x46 m=0 sigcode=0 addr=0x0`: adds its values to `info`.
pub(crate) fn pc_line(line: &[u8], info: &mut SignalInfo) -> bool {
    let Some(text) = line.strip_prefix(b"PC=") else { return false };
    let mut words = text.split(|byte| *byte == b' ');
    let Some(pc) = words.next().filter(|pc| hex(pc).is_some()) else { return false };
    let Some(b"m=") = words.next().and_then(|word| word.get(..2)) else { return false };
    info.pc = Some(lossy(pc));
    for word in words {
        if let Some(code) = word.strip_prefix(b"sigcode=") {
            info.code = Some(bounded(code, 64));
        } else if let Some(addr) = word.strip_prefix(b"addr=") {
            info.addr = Some(bounded(addr, 64));
        }
    }
    true
}

/// `[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a]`
pub(crate) fn bracket(line: &[u8]) -> Option<SignalInfo> {
    let text = line.strip_prefix(b"[signal ")?.strip_suffix(b"]")?;
    let (head, values) = split_once(text, b" code=")?;
    let name = split_once(head, b": ").map_or(head, |(name, _)| name);
    let name = if name.starts_with(b"SIG") {
        bounded(name, REASON_BYTES_MAX)
    } else {
        format!("signal {}", bounded(name, 64))
    };
    let mut words = values.split(|byte| *byte == b' ');
    let mut info = SignalInfo { name, code: words.next().map(|code| bounded(code, 64)), ..SignalInfo::default() };
    for word in words {
        if let Some(addr) = word.strip_prefix(b"addr=") {
            info.addr = Some(bounded(addr, 64));
        } else if let Some(pc) = word.strip_prefix(b"pc=") {
            info.pc = Some(bounded(pc, 64));
        }
    }
    Some(info)
}

/// Notes between the `PC=` line and the first goroutine.
pub(crate) fn is_note(line: &[u8]) -> bool {
    line == b"signal arrived during cgo execution" || line.starts_with(b"instruction bytes:")
}

/// One or two registers: `rax    0x0`, or `r0   0x0 TAB r1   0x0`.
pub(crate) fn registers(line: &[u8]) -> Option<impl Iterator<Item = (&str, &str)>> {
    fn one(text: &[u8]) -> Option<(&str, &str)> {
        let (name, value) = split_once(text, b" ")?;
        let value = value.trim_ascii_start();
        let plain =
            (1..=7).contains(&name.len()) && name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        (plain && hex(value).is_some()).then_some(())?;
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    }
    let (first, second) = split_once(line, b"\t").map_or((line, None), |(first, second)| (first, Some(second)));
    let first = one(first)?;
    let second = match second {
        Some(text) if !text.is_empty() => Some(one(text)?),
        _ => None,
    };
    Some(std::iter::once(first).chain(second))
}

/// What `go run` says about its child: `exit status 2`, `signal: killed`, `signal: aborted (core dumped)`.
pub(crate) fn is_exit_note(line: &[u8]) -> bool {
    if let Some(status) = line.strip_prefix(b"exit status ") {
        let (digits, rest) = split_digits(status);
        return (1..=3).contains(&digits.len()) && rest.is_empty();
    }
    line.strip_prefix(b"signal: ").is_some_and(|text| {
        let text = text.strip_suffix(b" (core dumped)").unwrap_or(text);
        (1..=32).contains(&text.len())
            && text.iter().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b' ' | b'/' | b'-' | b'0'..=b'9'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        assert_eq!(head(b"SIGQUIT: quit"), Some(Head { name: b"SIGQUIT", known: true }));
        assert_eq!(head(b"SIGUSR1: user-defined signal 1"), Some(Head { name: b"SIGUSR1", known: false }));
        assert_eq!(head(b"signal 42"), Some(Head { name: b"signal 42", known: false }));
        for line in
            ["SIG: x", "SIGNAL received: x", "SIGQUIT", "SIGQUIT:quit", "signal x", "signal: killed", "SIGTERM: "]
        {
            let found = head(line.as_bytes());
            assert!(found.is_none() || line.starts_with("SIGNAL"), "{line}");
        }
        let mut info = SignalInfo::default();
        assert!(pc_line(b"PC=0x46 m=0 sigcode=18446744073709551610 addr=0x8", &mut info));
        assert_eq!(info.pc.as_deref(), Some("0x46"));
        assert_eq!(info.code.as_deref(), Some("18446744073709551610"));
        assert_eq!(info.addr.as_deref(), Some("0x8"));
        assert!(!pc_line(b"PC=x m=0", &mut info));
        assert!(!pc_line(b"PC=0x1", &mut info));
    }

    #[test]
    fn brackets() {
        let info = bracket(b"[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a]").unwrap();
        assert_eq!(
            (info.name.as_str(), info.code.as_deref(), info.addr.as_deref(), info.pc.as_deref()),
            ("SIGSEGV", Some("0x1"), Some("0x0"), Some("0x4a"))
        );
        assert_eq!(bracket(b"[signal 0x2a code=0x1 addr=0x0 pc=0x4a]").unwrap().name, "signal 0x2a");
        assert_eq!(bracket(b"[signal was sent]"), None);
    }

    #[test]
    fn register_rows() {
        let rows = |line: &str| {
            registers(line.as_bytes()).map(|rows| rows.map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>())
        };
        assert_eq!(rows("rax    0x0").unwrap(), ["rax=0x0"]);
        assert_eq!(rows("rflags 0x246").unwrap(), ["rflags=0x246"]);
        assert_eq!(rows("r0   0x0\tr1   0xff").unwrap(), ["r0=0x0", "r1=0xff"]);
        assert_eq!(rows("oldmask 0x0").unwrap(), ["oldmask=0x0"]);
        for line in ["", "rax", "rax 0", "rax  0x", "Rax 0x0", "two words 0x0", "r0 0x0\tr1"] {
            assert_eq!(rows(line), None, "{line}");
        }
    }

    #[test]
    fn exit_notes() {
        for line in ["exit status 2", "exit status 134", "signal: killed", "signal: aborted (core dumped)"] {
            assert!(is_exit_note(line.as_bytes()), "{line}");
        }
        for line in [
            "exit status",
            "exit status 2 of the job",
            "exit status 1234",
            "signal: ",
            "signal: SIGTERM received, leaving",
        ] {
            assert!(!is_exit_note(line.as_bytes()), "{line}");
        }
    }
}
