//! Whether an executable is static: as much of ELF as that takes.

/// The program header types of a little-endian 64-bit ELF file.
///
/// # Errors
/// The file is something else.
pub fn program_header_types(file: &[u8]) -> anyhow::Result<Vec<u32>> {
    let bytes = |at: usize, len: usize| {
        file.get(at..at + len).ok_or_else(|| anyhow::anyhow!("the file ends at {}", file.len()))
    };
    anyhow::ensure!(bytes(0, 6)? == b"\x7fELF\x02\x01", "not a little-endian 64-bit ELF file");
    let start = usize::try_from(u64::from_le_bytes(bytes(32, 8)?.try_into()?))?;
    let size = usize::from(u16::from_le_bytes(bytes(54, 2)?.try_into()?));
    let count = usize::from(u16::from_le_bytes(bytes(56, 2)?.try_into()?));
    (0..count).map(|i| Ok(u32::from_le_bytes(bytes(start + i * size, 4)?.try_into()?))).collect()
}

/// `PT_INTERP`: the file asks for a dynamic loader.
pub const PT_INTERP: u32 = 3;
