//! As much of ELF as leads to one section: 32 and 64 bits, either byte order.

use super::BuildInfoError;
use crate::limits::{BUILDINFO_TEXT_BYTES_MAX, ELF_TABLE_BYTES_MAX};

/// Bounded reads at offsets.
pub(super) struct Reader<R> {
    read_at: R,
}

impl<R: FnMut(u64, &mut [u8]) -> Option<usize>> Reader<R> {
    pub(super) fn new(read_at: R) -> Self {
        Self { read_at }
    }

    /// At most `len` bytes, fewer only at the end of the file. `len` must be bounded by the caller.
    pub(super) fn up_to(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, BuildInfoError> {
        let mut buffer = vec![0; len];
        let mut filled = 0_usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(u64::try_from(filled).unwrap_or(u64::MAX)).ok_or(BuildInfoError::Damaged)?;
            let room = rest.len();
            match (self.read_at)(at, rest) {
                Some(0) => break,
                Some(count) => filled = filled.saturating_add(count.min(room)),
                None => return Err(BuildInfoError::Damaged),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    fn exact(&mut self, offset: u64, len: u64, max: usize) -> Result<Vec<u8>, BuildInfoError> {
        let len = usize::try_from(len).ok().filter(|len| *len <= max).ok_or(BuildInfoError::Damaged)?;
        // An honest length is never longer than the file; the last byte is looked for before memory is taken for the others.
        if len > 4096 {
            let last = offset.checked_add(u64::try_from(len).unwrap_or(u64::MAX)).ok_or(BuildInfoError::Damaged)?;
            self.array::<1>(last.saturating_sub(1))?;
        }
        let bytes = self.up_to(offset, len)?;
        if bytes.len() == len { Ok(bytes) } else { Err(BuildInfoError::Damaged) }
    }

    pub(super) fn array<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], BuildInfoError> {
        self.up_to(offset, N)?.try_into().map_err(|_| BuildInfoError::Damaged)
    }

    /// A text of the build information.
    pub(super) fn text(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, BuildInfoError> {
        self.exact(offset, len, BUILDINFO_TEXT_BYTES_MAX)
    }

    fn table(&mut self, offset: u64, entry: u64, count: u64) -> Result<Vec<u8>, BuildInfoError> {
        self.exact(offset, entry.checked_mul(count).ok_or(BuildInfoError::Damaged)?, ELF_TABLE_BYTES_MAX)
    }
}

/// A number of up to eight bytes.
pub(super) fn number(bytes: &[u8], big_endian: bool) -> u64 {
    let add = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

/// The tables of a file.
#[derive(Debug)]
pub(super) struct Elf {
    wide: bool,
    big_endian: bool,
    segments: Vec<Segment>,
    sections: Vec<u8>,
    section_bytes: usize,
    names_index: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    loads: bool,
    flags: u64,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

/// Where a field stands: offset and bytes in a 32-bit file, then in a 64-bit file.
type Field = ((usize, usize), (usize, usize));

const PH_OFFSET: Field = ((28, 4), (32, 8));
const SH_OFFSET: Field = ((32, 4), (40, 8));
const PH_BYTES: Field = ((42, 2), (54, 2));
const PH_COUNT: Field = ((44, 2), (56, 2));
const SH_BYTES: Field = ((46, 2), (58, 2));
const SH_COUNT: Field = ((48, 2), (60, 2));
const SH_NAMES: Field = ((50, 2), (62, 2));

const P_TYPE: Field = ((0, 4), (0, 4));
const P_OFFSET: Field = ((4, 4), (8, 8));
const P_ADDRESS: Field = ((8, 4), (16, 8));
const P_FILE_BYTES: Field = ((16, 4), (32, 8));
const P_FLAGS: Field = ((24, 4), (4, 4));

const S_NAME: Field = ((0, 4), (0, 4));
const S_OFFSET: Field = ((16, 4), (24, 8));
const S_BYTES: Field = ((20, 4), (32, 8));

impl Elf {
    pub(super) fn read<R: FnMut(u64, &mut [u8]) -> Option<usize>>(
        reader: &mut Reader<R>,
    ) -> Result<Self, BuildInfoError> {
        let header = reader.up_to(0, 64)?;
        let [0x7f, b'E', b'L', b'F', class, order, ..] = *header.as_slice() else { return Err(BuildInfoError::NotElf) };
        if !matches!(class, 1 | 2) || !matches!(order, 1 | 2) {
            return Err(BuildInfoError::NotElf);
        }
        let mut elf = Self {
            wide: class == 2,
            big_endian: order == 2,
            segments: Vec::new(),
            sections: Vec::new(),
            section_bytes: 0,
            names_index: elf_field(&header, SH_NAMES, class == 2, order == 2)?,
        };
        let (at, bytes, count) =
            (elf.field(&header, PH_OFFSET)?, elf.field(&header, PH_BYTES)?, elf.field(&header, PH_COUNT)?);
        if count > 0 {
            let table = reader.table(at, bytes, count)?;
            elf.segments = table.chunks_exact(step(bytes)?).map(|row| elf.segment(row)).collect::<Result<_, _>>()?;
        }
        let (at, bytes, count) =
            (elf.field(&header, SH_OFFSET)?, elf.field(&header, SH_BYTES)?, elf.field(&header, SH_COUNT)?);
        if at > 0 && count > 0 {
            elf.section_bytes = step(bytes)?;
            elf.sections = reader.table(at, bytes, count)?;
        }
        Ok(elf)
    }

    fn field(&self, row: &[u8], field: Field) -> Result<u64, BuildInfoError> {
        elf_field(row, field, self.wide, self.big_endian)
    }

    fn segment(&self, row: &[u8]) -> Result<Segment, BuildInfoError> {
        Ok(Segment {
            loads: self.field(row, P_TYPE)? == 1,
            flags: self.field(row, P_FLAGS)?,
            offset: self.field(row, P_OFFSET)?,
            address: self.field(row, P_ADDRESS)?,
            file_bytes: self.field(row, P_FILE_BYTES)?,
        })
    }

    /// Offset and length of a section; `None` where there is none of that name.
    pub(super) fn section<R: FnMut(u64, &mut [u8]) -> Option<usize>>(
        &self,
        reader: &mut Reader<R>,
        name: &[u8],
    ) -> Result<Option<(u64, u64)>, BuildInfoError> {
        if self.section_bytes == 0 {
            return Ok(None);
        }
        let mut rows = self.sections.chunks_exact(self.section_bytes);
        let Some(names) = usize::try_from(self.names_index).ok().and_then(|index| rows.clone().nth(index)) else {
            return Ok(None);
        };
        let names = reader.exact(self.field(names, S_OFFSET)?, self.field(names, S_BYTES)?, ELF_TABLE_BYTES_MAX)?;
        let is_it = |row: &&[u8]| {
            let at = self.field(row, S_NAME).ok().and_then(|at| usize::try_from(at).ok());
            let text = at.and_then(|at| names.get(at..)).and_then(|text| text.strip_prefix(name));
            text.is_some_and(|behind| behind.first() == Some(&0))
        };
        rows.find(is_it).map(|row| Ok((self.field(row, S_OFFSET)?, self.field(row, S_BYTES)?))).transpose()
    }

    /// The first segment that is written and not executed: there the linker puts the build information.
    pub(super) fn data_segment(&self) -> Option<(u64, u64)> {
        const EXECUTE: u64 = 1;
        const WRITE: u64 = 2;
        let segment =
            self.segments.iter().find(|segment| segment.loads && segment.flags & (EXECUTE | WRITE) == WRITE)?;
        Some((segment.offset, segment.file_bytes))
    }

    /// Where in the file an address of the running program lies.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        let within = |segment: &Segment| {
            address.checked_sub(segment.address).filter(|at| segment.loads && *at < segment.file_bytes)
        };
        self.segments.iter().find_map(|segment| within(segment)?.checked_add(segment.offset))
    }
}

fn elf_field(row: &[u8], field: Field, wide: bool, big_endian: bool) -> Result<u64, BuildInfoError> {
    let (start, len) = if wide { field.1 } else { field.0 };
    let bytes = row.get(start..).and_then(|rest| rest.get(..len)).ok_or(BuildInfoError::Damaged)?;
    Ok(number(bytes, big_endian))
}

/// The size of a table's rows.
fn step(bytes: u64) -> Result<usize, BuildInfoError> {
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).ok_or(BuildInfoError::Damaged)
}
