//! The app's executable: what its Go build information says.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use goscope_formats::{BuildInfo, read_build_info};

/// Reads the build information of `executable`; `None` where it cannot be read or is no Go program.
#[must_use]
pub fn build_info(executable: &Path) -> Option<BuildInfo> {
    let file = File::open(executable).ok()?;
    read_build_info(|offset, buffer| file.read_at(buffer, offset).ok()).ok()
}
