//! The report that stands on stderr when the app has died.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use goscope_analysis::report::{self, Style};
use goscope_analysis::text::Colour;
use goscope_formats::Incident;

use super::death;
use super::evidence::Stored;
use super::run::Shared;
use crate::config::units::size_text;
use crate::notice::pasteable;
use crate::spool::ExitRecord;
use crate::store::Store;

/// Groups that the report lists; `goscope analyze` lists them all.
const GROUPS_MAX: usize = 5;

/// A death that stderr told.
pub(super) struct Told<'a> {
    pub incident: &'a Incident,
    pub module: Option<&'a str>,
    pub exit: Option<&'a ExitRecord>,
    pub stored: &'a Stored,
}

pub(super) fn told(told: &Told<'_>, shared: &Shared) -> String {
    let colour = shared.notices.colour();
    let mut text = report::incident(told.incident, Style { colour, module: told.module, groups_max: GROUPS_MAX });
    if let Some(exit) = told.exit {
        text.push_str(&ending(exit));
    }
    kept(&mut text, told.stored, shared, colour);
    framed(&text, colour)
}

pub(super) fn wordless(reason: &str, exit: &ExitRecord, stored: &Stored, shared: &Shared) -> String {
    let colour = shared.notices.colour();
    let mut text = format!("{}\n", colour.alarm(&format!("{reason}, without a word of the Go runtime")));
    text.push_str(&ending(exit));
    kept(&mut text, stored, shared, colour);
    framed(&text, colour)
}

/// `folder` as a person names it: relative where `--data` was.
pub(super) fn shown(folder: &Path, store: &Store, shown_store: &Path) -> PathBuf {
    folder.strip_prefix(store.root()).map_or_else(|_| folder.to_owned(), |rest| shown_store.join(rest))
}

fn framed(text: &str, colour: Colour) -> String {
    format!("{} {text}", colour.strong("goscope:"))
}

fn kept(text: &mut String, stored: &Stored, shared: &Shared, colour: Colour) {
    let folder = shown(&stored.folder, &shared.store, &shared.shown_store);
    let (place, stderr) = (folder.display(), pasteable(&folder.join("stderr.txt")));
    writeln!(text, "  {}  {place}", colour.dim("kept in")).expect("writing to a string cannot fail");
    writeln!(text, "  {}     goscope analyze {stderr}", colour.dim("more")).expect("writing to a string cannot fail");
}

fn ending(exit: &ExitRecord) -> String {
    let lived = u64::try_from(exit.ended_unix_ms.saturating_sub(exit.started_unix_ms)).unwrap_or_default();
    let core = if exit.core_dumped { ", core dumped" } else { "" };
    format!(
        "  {}{core} after {}.{} s; peak memory {}\n",
        death::reason(exit),
        lived / 1000,
        lived % 1000 / 100,
        size_text(exit.max_rss_bytes >> 20 << 20)
    )
}
