//! What an incident must hold of a fault of the shop, whoever ran it.

use anyhow::{Context, ensure};

use crate::fault::{End, Fault};
use crate::incident::Stored;

/// The incident says what happened, and holds the bytes that the app wrote where it says that they were.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check(fault: &Fault, stored: &Stored, stderr: &[u8], status: Option<i32>) -> anyhow::Result<()> {
    ensure!(stored.kind() == fault.kind, "kind {:?}", stored.kind());
    ensure!(fault.reason.matches(stored.reason()), "reason {:?}", stored.reason());
    let (start, end) = stored.span().context("no span")?;
    ensure!(
        stderr.get(start..end) == Some(&stored.stderr),
        "stderr.txt is not bytes {start}..{end} of the app's stderr"
    );
    ensure!(stderr[..start].ends_with(&stored.before), "before.txt is not what came before byte {start}");
    ensure!(stored.before.len() == start.min(256 << 10), "before.txt holds {} of {start} bytes", stored.before.len());
    if fault.kind == "exit" {
        ensure!(end == stderr.len(), "a death without words stands at the end: {start}..{end}");
    } else {
        ensure!(stored.incident["complete"] == true, "not complete");
        report(fault, stored)?;
    }
    if let End::Status(_) | End::Quit(_) = fault.end {
        let exit = stored.exit.as_ref().context("no exit record")?;
        ensure!(exit["status"].as_i64() == status.map(i64::from), "exit record {exit}");
        ensure!(exit["stderr_bytes"].as_u64() == u64::try_from(stderr.len()).ok(), "exit record {exit}");
        ensure!(exit["unspooled_bytes"] == 0, "exit record {exit}");
    }
    Ok(())
}

/// The report begins and ends where the text does, and its first goroutine is the one that failed.
fn report(fault: &Fault, stored: &Stored) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&stored.stderr);
    let begins = match fault.kind {
        "panic" => text.starts_with("panic: "),
        "fatal" => text.starts_with("fatal error: ") || text.starts_with("runtime: "),
        "signal" => text.starts_with("SIG"),
        "http_panic" => text.lines().next().is_some_and(|line| line.contains("http: panic serving ")),
        "race" => {
            text.starts_with("==================\nWARNING: DATA RACE\n") && text.ends_with("==================\n")
        }
        other => anyhow::bail!("kind {other}"),
    };
    ensure!(begins, "the report begins with {:?}", text.lines().next());
    ensure!(stored.stderr.ends_with(b"\n"), "the report ends in the middle of a line");
    if fault.kind == "race" {
        let accesses = stored.incident["race"]["accesses"].as_array().context("no accesses")?;
        ensure!(accesses.len() == 2, "{} accesses", accesses.len());
        return Ok(());
    }
    let goroutines = stored.incident["goroutines"].as_array().context("no goroutines")?;
    let counted = stored.incident["goroutine_count"].as_u64().context("no goroutine_count")?;
    let written = text.lines().filter(|line| line.starts_with("goroutine ") && line.ends_with("]:")).count();
    ensure!(usize::try_from(counted)? == written, "{counted} goroutines, the text has {written}");
    if let End::Quit(_) = fault.end {
        return Ok(());
    }
    let frames = goroutines.iter().find(|g| g["id"] != 0).and_then(|g| g["frames"].as_array()).context("no frames")?;
    let found = frames.iter().any(|frame| frame["func"] == fault.function);
    ensure!(found, "no {} in {frames:?}", fault.function);
    Ok(())
}
