//! The build information that the Go linker leaves in an ELF file: release, modules, settings.
//!
//! Sources: `src/debug/buildinfo/buildinfo.go`, `src/cmd/link/internal/ld/data.go`, `src/runtime/debug/mod.go`. Stripping keeps it. The
//! file is read through a function, a few small ranges of it only.

use crate::limits::{BUILDINFO_SEARCH_BYTES_MAX, BUILDINFO_SETTINGS_MAX, BUILDINFO_TEXT_BYTES_MAX};
use crate::text::{lossy, split_once, unquote};

mod elf;

use elf::{Elf, Reader};

/// What the linker wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// `go1.27.3`, or `devel go1.28-HASH DATE`; ` X:EXPERIMENT,…` may stand behind it.
    pub go_version: String,
    /// Path of the main package.
    pub path: Option<String>,
    /// Path of the main module; what [`crate::Frame::origin`] and [`crate::fingerprint`] want.
    pub module: Option<String>,
    /// Its version; `(devel)` for a local build.
    pub version: Option<String>,
    /// How many modules it depends on.
    pub deps: usize,
    /// `-race`, `vcs.revision`, `GOARCH` and the like, in the order written.
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// The value of a setting.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Whether the race detector is in it.
    #[must_use]
    pub fn has_race_detector(&self) -> bool {
        self.setting("-race") == Some("true")
    }

    /// The commit that it was built from.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.setting("vcs.revision")
    }
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildInfoError {
    /// The file does not start as ELF does.
    NotElf,
    /// A range that the file's own tables name lies outside it, cannot be read, or is over a bound.
    Damaged,
    /// No Go program, or built without build information.
    NotGo,
}

impl std::fmt::Display for BuildInfoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotElf => "not an ELF file",
            Self::Damaged => "the ELF file is damaged",
            Self::NotGo => "the ELF file holds no Go build information",
        })
    }
}

impl std::error::Error for BuildInfoError {}

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const HEADER_BYTES: usize = 32;
const ALIGN: u64 = 16;
/// Stands before and behind the module information.
const MARK_BYTES: usize = 16;

/// Reads the build information of an ELF file. `read_at` fills the buffer from an offset as far as it can and says how far, or `None` where
/// reading fails.
///
/// # Errors
/// [`BuildInfoError`]; a Go program of which only the modules are missing is none.
pub fn read_build_info(read_at: impl FnMut(u64, &mut [u8]) -> Option<usize>) -> Result<BuildInfo, BuildInfoError> {
    let mut reader = Reader::new(read_at);
    let elf = Elf::read(&mut reader)?;
    let range = match elf.section(&mut reader, b".go.buildinfo")? {
        Some(range) => range,
        None => elf.data_segment().ok_or(BuildInfoError::NotGo)?,
    };
    let at = find(&mut reader, range.0, range.1.min(BUILDINFO_SEARCH_BYTES_MAX))?.ok_or(BuildInfoError::NotGo)?;
    let header: [u8; HEADER_BYTES] = reader.array(at)?;
    let [.., pointer_bytes, flags] = *header.first_chunk::<16>().ok_or(BuildInfoError::Damaged)?;
    let (version, modules) = if flags & 2 != 0 {
        inline(&mut reader, at.saturating_add(32))?
    } else {
        pointed(&mut reader, &elf, &header, pointer_bytes, flags & 1 != 0)?
    };
    if version.is_empty() {
        return Err(BuildInfoError::NotGo);
    }
    let mut info = BuildInfo { go_version: lossy(&version), ..BuildInfo::default() };
    if let Some(text) = unframed(&modules) {
        info.read_modules(text);
    }
    Ok(info)
}

/// Reads a copy of a file's bytes that begins with the linker's mark, as Go has written it since 1.18. A copy that ends too early gives what is there.
///
/// # Errors
/// [`BuildInfoError::NotGo`]: no such mark, or one of an older Go, which points elsewhere. [`BuildInfoError::Damaged`]: not even the release is whole.
pub fn read_build_info_copy(copy: &[u8]) -> Result<BuildInfo, BuildInfoError> {
    let header = copy.first_chunk::<HEADER_BYTES>().filter(|header| header.starts_with(MAGIC));
    if header.is_none_or(|header| header.get(15).is_none_or(|flags| flags & 2 == 0)) {
        return Err(BuildInfoError::NotGo);
    }
    let text = |copy: &[u8], at: usize| {
        let rest = copy.get(at..).unwrap_or_default();
        let (len, head) = varint(rest).ok_or(BuildInfoError::Damaged)?;
        let (len, head) = (usize::try_from(len).unwrap_or(usize::MAX), usize::try_from(head).unwrap_or(usize::MAX));
        let start = at.checked_add(head).ok_or(BuildInfoError::Damaged)?;
        Ok((start, len))
    };
    let (start, len) = text(copy, HEADER_BYTES)?;
    let end = start.checked_add(len).ok_or(BuildInfoError::Damaged)?;
    let version = copy.get(start..end).ok_or(BuildInfoError::Damaged)?;
    if version.is_empty() {
        return Err(BuildInfoError::NotGo);
    }
    let mut info = BuildInfo { go_version: lossy(version), ..BuildInfo::default() };
    if let Ok((start, len)) = text(copy, end) {
        let rest = copy.get(start..).unwrap_or_default();
        let modules = match rest.get(..len) {
            Some(whole) => unframed(whole),
            // The last line may be cut.
            None => memchr::memrchr(b'\n', rest).and_then(|end| rest.get(MARK_BYTES..end)),
        };
        info.read_modules(modules.unwrap_or_default());
    }
    Ok(info)
}

/// The first magic at an aligned offset.
fn find<R: FnMut(u64, &mut [u8]) -> Option<usize>>(
    reader: &mut Reader<R>,
    start: u64,
    len: u64,
) -> Result<Option<u64>, BuildInfoError> {
    const STEP: usize = 64 << 10;
    let start = start.checked_next_multiple_of(ALIGN).ok_or(BuildInfoError::Damaged)?;
    let end = start.checked_add(len).ok_or(BuildInfoError::Damaged)?;
    let mut offset = start;
    while offset < end {
        let want = usize::try_from(end.saturating_sub(offset)).unwrap_or(STEP).min(STEP);
        let chunk = reader.up_to(offset, want)?;
        // An aligned magic never straddles two steps.
        for at in memchr::memmem::find_iter(&chunk, MAGIC) {
            let at = offset.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
            if at % ALIGN == 0 {
                return Ok(Some(at));
            }
        }
        if chunk.len() < want {
            break;
        }
        offset = offset.saturating_add(u64::try_from(want).unwrap_or(u64::MAX));
    }
    Ok(None)
}

/// Since Go 1.18: two texts, each behind its length.
fn inline<R: FnMut(u64, &mut [u8]) -> Option<usize>>(
    reader: &mut Reader<R>,
    at: u64,
) -> Result<(Vec<u8>, Vec<u8>), BuildInfoError> {
    let mut at = at;
    let mut text = || {
        let head = reader.up_to(at, 10)?;
        let (len, bytes) = varint(&head).ok_or(BuildInfoError::Damaged)?;
        let start = at.checked_add(bytes).ok_or(BuildInfoError::Damaged)?;
        let text = reader.text(start, len)?;
        at = start.checked_add(len).ok_or(BuildInfoError::Damaged)?;
        Ok(text)
    };
    Ok((text()?, text()?))
}

/// Before Go 1.18: two addresses of string headers, each an address and a length.
fn pointed<R: FnMut(u64, &mut [u8]) -> Option<usize>>(
    reader: &mut Reader<R>,
    elf: &Elf,
    header: &[u8; HEADER_BYTES],
    pointer_bytes: u8,
    big_endian: bool,
) -> Result<(Vec<u8>, Vec<u8>), BuildInfoError> {
    let size = usize::from(pointer_bytes);
    if size != 4 && size != 8 {
        return Err(BuildInfoError::Damaged);
    }
    let number =
        |bytes: Option<&[u8]>| bytes.map(|bytes| elf::number(bytes, big_endian)).ok_or(BuildInfoError::Damaged);
    let pair = |bytes: &[u8]| Ok((number(bytes.get(..size))?, number(bytes.get(size..size.saturating_mul(2)))?));
    let (version, modules) = pair(header.get(16..).unwrap_or_default())?;
    let mut text = |address: u64| {
        if address == 0 {
            return Ok(Vec::new());
        }
        let at = elf.offset_of(address).ok_or(BuildInfoError::Damaged)?;
        let (data, len) = pair(&reader.array::<16>(at)?)?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let at = elf.offset_of(data).ok_or(BuildInfoError::Damaged)?;
        reader.text(at, len)
    };
    Ok((text(version)?, text(modules)?))
}

/// A length of up to ten bytes, seven bits each, and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut value = 0_u64;
    let mut taken = 0_u64;
    for &byte in bytes.iter().take(10) {
        let shift = u32::try_from(taken.checked_mul(7)?).ok()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        taken = taken.checked_add(1)?;
        if byte & 0x80 == 0 {
            return Some((value, taken));
        }
    }
    None
}

/// Takes off the marks; `None` where there is no module information.
fn unframed(modules: &[u8]) -> Option<&[u8]> {
    let end = modules.len().checked_sub(MARK_BYTES)?;
    let text = modules.get(MARK_BYTES..end)?;
    (text.last() == Some(&b'\n')).then_some(text)
}

impl BuildInfo {
    fn read_modules(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            let Some((word, rest)) = split_once(line, b"\t") else { continue };
            let mut columns = rest.split(|byte| *byte == b'\t');
            let mut column = || columns.next().filter(|text| !text.is_empty()).map(lossy);
            match word {
                b"path" => self.path = Some(lossy(rest)),
                b"mod" => (self.module, self.version) = (column(), column()),
                b"dep" => self.deps = self.deps.saturating_add(1),
                b"build" if self.settings.len() < BUILDINFO_SETTINGS_MAX => self.settings.extend(setting(rest)),
                _ => {}
            }
        }
    }
}

/// `key=value`, each quoted where it holds spaces, quotes or the like.
fn setting(text: &[u8]) -> Option<(String, String)> {
    let (key, value) = match text.strip_prefix(b"\"") {
        Some(quoted) => {
            let (key, rest) = unquote(quoted);
            (lossy(&key), rest.strip_prefix(b"=")?)
        }
        None => {
            let (key, value) = split_once(text, b"=")?;
            (lossy(key), value)
        }
    };
    let value = value.strip_prefix(b"\"").map_or_else(|| lossy(value), |quoted| lossy(&unquote(quoted).0));
    Some((key, value))
}

const _: () = assert!(BUILDINFO_TEXT_BYTES_MAX >= 2 * MARK_BYTES);

#[cfg(test)]
mod tests;
