//! Incidents as the store keeps them: `DATA/data/<host>/incidents/<time>-<id>/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// One incident folder.
#[derive(Debug)]
pub struct Stored {
    pub folder: PathBuf,
    /// `incident.json`: one incident of `goscope analyze --format json`, and id, run, first_seen, count.
    pub incident: Value,
    /// `exit.json`: the launcher's exit record, where the run had ended.
    pub exit: Option<Value>,
    /// `stderr.txt`: the bytes of the incident's span.
    pub stderr: Vec<u8>,
    /// `before.txt`: up to 256 KiB before it.
    pub before: Vec<u8>,
}

impl Stored {
    /// `kind`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.incident["kind"].as_str().unwrap_or_default()
    }

    /// `reason`.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.incident["reason"].as_str().unwrap_or_default()
    }

    /// `span`: first byte and the one after the last, in the stream of the run.
    #[must_use]
    pub fn span(&self) -> Option<(usize, usize)> {
        let end = |i: usize| self.incident["span"][i].as_u64().and_then(|n| usize::try_from(n).ok());
        Some((end(0)?, end(1)?))
    }
}

/// All incidents below a data folder, oldest first. Staged ones (their names begin with a dot, or their time is not there yet) do not count.
///
/// # Errors
/// A folder that is there cannot be read, or is not whole.
pub fn stored(data: &Path) -> anyhow::Result<Vec<Stored>> {
    let mut folders = Vec::new();
    for host in children(&data.join("data"))? {
        folders.extend(children(&host.join("incidents"))?);
    }
    folders.sort();
    folders.into_iter().map(read).collect()
}

fn read(folder: PathBuf) -> anyhow::Result<Stored> {
    let bytes = |name: &str| fs::read(folder.join(name)).with_context(|| format!("{name} of {}", folder.display()));
    let json = |name: &str| anyhow::Ok(serde_json::from_slice(&bytes(name)?)?);
    json("meta.json")?;
    Ok(Stored {
        incident: json("incident.json")?,
        exit: folder.join("exit.json").exists().then(|| json("exit.json")).transpose()?,
        stderr: bytes("stderr.txt")?,
        before: if folder.join("before.txt").exists() { bytes("before.txt")? } else { Vec::new() },
        folder,
    })
}

fn children(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                    found.push(path);
                }
            }
            Ok(found)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(found),
        Err(error) => Err(error).with_context(|| folder.display().to_string()),
    }
}
