use super::*;

fn read(file: &[u8]) -> Result<BuildInfo, BuildInfoError> {
    read_build_info(|offset, buffer| {
        let rest = usize::try_from(offset).ok().and_then(|offset| file.get(offset..)).unwrap_or_default();
        // Short reads are what a file may give.
        let count = rest.len().min(buffer.len()).min(100);
        buffer[..count].copy_from_slice(&rest[..count]);
        Some(count)
    })
}

const MODULES: &str = "path\texample.com/shop/cmd\nmod\texample.com/shop\t(devel)\t\ndep\tgithub.com/a/b\tv1.2.3\th1:x=\n\
    =>\tgithub.com/c/b\tv1.2.4\th1:y=\ndep\tgolang.org/x/c\tv0.1.0\th1:z=\nbuild\t-race=true\nbuild\t-ldflags=\"-s -w -X main.v=\\\"1\\\"\"\n\
    build\tvcs.revision=0123abcd\n";

/// The section's bytes as the linker lays them out.
fn section(modules: &str) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([8, 2]);
    bytes.resize(HEADER_BYTES, 0);
    let mut text = |text: &[u8]| {
        let mut len = text.len();
        while len >= 0x80 {
            bytes.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes.extend(text);
    };
    text(b"go1.27.3");
    let marked = [&[0x30; 16][..], modules.as_bytes(), &[0xf9; 16]].concat();
    text(if modules.is_empty() { b"" } else { &marked });
    bytes
}

/// A 64-bit little-endian file of one segment and, if wanted, sections.
fn elf(content: &[u8], with_sections: bool) -> Vec<u8> {
    let mut file = vec![0; 0x100];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let put = |file: &mut Vec<u8>, at: usize, value: u64, bytes: usize| {
        if file.len() < at + bytes {
            file.resize(at + bytes, 0);
        }
        file[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    };
    let len = content.len() as u64;
    for (at, value, bytes) in [(32, 64, 8), (54, 56, 2), (56, 1, 2), (58, 64, 2)] {
        put(&mut file, at, value, bytes);
    }
    // Program header: type, flags (rw), offset, address, bytes in the file.
    for (at, value, bytes) in [(64, 1, 4), (68, 6, 4), (72, 0x100, 8), (80, 0x50_0000, 8), (96, len, 8)] {
        put(&mut file, at, value, bytes);
    }
    file.extend(content);
    if with_sections {
        let names = file.len();
        file.extend(b"\0.shstrtab\0.go.buildinfo\0");
        let table = file.len();
        for (at, value, bytes) in [(40, table as u64, 8), (60, 3, 2), (62, 1, 2)] {
            put(&mut file, at, value, bytes);
        }
        file.resize(table + 3 * 64, 0);
        for (row, name, offset, len) in [(1, 1, names as u64, 25), (2, 11, 0x100, len)] {
            put(&mut file, table + row * 64, name, 4);
            put(&mut file, table + row * 64 + 24, offset, 8);
            put(&mut file, table + row * 64 + 32, len, 8);
        }
    }
    file
}

fn check(info: &BuildInfo) {
    assert_eq!(info.go_version, "go1.27.3");
    assert_eq!(info.path.as_deref(), Some("example.com/shop/cmd"));
    assert_eq!((info.module.as_deref(), info.version.as_deref()), (Some("example.com/shop"), Some("(devel)")));
    assert_eq!(info.deps, 2);
    assert!(info.has_race_detector());
    assert_eq!(info.revision(), Some("0123abcd"));
    assert_eq!(info.setting("-ldflags"), Some("-s -w -X main.v=\"1\""));
}

#[test]
fn by_section_and_by_segment() {
    check(&read(&elf(&section(MODULES), true)).unwrap());
    let far = [vec![7; 70_000], section(MODULES)].concat();
    check(&read(&elf(&far, false)).unwrap());
    let bare = read(&elf(&section(""), true)).unwrap();
    assert_eq!(bare, BuildInfo { go_version: "go1.27.3".to_owned(), ..BuildInfo::default() });
}

#[test]
fn by_pointers_before_go_1_18() {
    let modules = [&[0x30; 16][..], MODULES.as_bytes(), &[0xf9; 16]].concat();
    let base = 0x50_0000_u64;
    let mut content = MAGIC.to_vec();
    content.extend([8, 0]);
    for pointer in [base + 32, base + 48, base + 64, 8, base + 72, modules.len() as u64] {
        content.extend(pointer.to_le_bytes());
    }
    content.extend(b"go1.27.3");
    content.extend(modules);
    check(&read(&elf(&content, true)).unwrap());
}

#[test]
fn what_is_none() {
    assert_eq!(read(b""), Err(BuildInfoError::NotElf));
    assert_eq!(read(b"#!/bin/sh\n"), Err(BuildInfoError::NotElf));
    assert_eq!(read(&elf(b"", true)), Err(BuildInfoError::NotGo));
    assert_eq!(read(&elf(&[0; 500], false)), Err(BuildInfoError::NotGo));
    // Not aligned.
    assert_eq!(read(&elf(&[&[0; 8], section(MODULES).as_slice()].concat(), true)), Err(BuildInfoError::NotGo));
    assert_eq!(read_build_info(|_, _| None), Err(BuildInfoError::Damaged));
}

#[test]
fn every_cut_and_every_flipped_byte_ends_well() {
    for with_sections in [true, false] {
        let file = elf(&section(MODULES), with_sections);
        for end in 0..file.len() {
            assert!(read(&file[..end]).is_err() || end > 0x100);
        }
        for at in 0..file.len() {
            for value in [0, 0x7f, 0xff] {
                let mut file = file.clone();
                file[at] = value;
                if let Ok(info) = read(&file) {
                    assert!(!info.go_version.is_empty());
                }
            }
        }
    }
}

#[test]
fn the_texts_bound_at_its_edge() {
    // Room for the marks, the word, its column and the LF.
    let fits = BUILDINFO_TEXT_BYTES_MAX - 2 * MARK_BYTES - "path\t\n".len();
    let path = |len: usize| read(&elf(&section(&format!("path\t{}\n", "p".repeat(len))), true));
    assert_eq!(path(fits).unwrap().path.unwrap().len(), fits);
    assert_eq!(path(fits + 1), Err(BuildInfoError::Damaged));
    let many: String = (0..=BUILDINFO_SETTINGS_MAX).map(|n| format!("build\tk{n}=v\n")).collect();
    assert_eq!(read(&elf(&section(&many), true)).unwrap().settings.len(), BUILDINFO_SETTINGS_MAX);
}

#[test]
fn lengths() {
    assert_eq!(varint(&[0x7f]), Some((127, 1)));
    assert_eq!(varint(&[0x80, 0x01]), Some((128, 2)));
    assert_eq!(varint(&[0x80]), None);
    assert_eq!(varint(&[0xff; 11]), None);
}

#[test]
fn a_copy_of_the_section_reads_as_the_file_does() {
    let expected = read(&elf(&section(MODULES), true)).expect("a Go program");
    assert_eq!(read_build_info_copy(&section(MODULES)), Ok(expected.clone()));
    // What stands behind it in the file does not matter.
    assert_eq!(read_build_info_copy(&[section(MODULES), vec![0xff; 500]].concat()), Ok(expected));
    let bare = read_build_info_copy(&section("")).expect("a Go program");
    assert_eq!((bare.go_version.as_str(), bare.module), ("go1.27.3", None));
}

#[test]
fn a_copy_that_was_cut_gives_what_is_there() {
    let whole = section(MODULES);
    let expected = read_build_info_copy(&whole).expect("a Go program");
    for len in 0..whole.len() {
        match read_build_info_copy(&whole[..len]) {
            Err(BuildInfoError::NotGo) => assert!(len < HEADER_BYTES, "{len}"),
            Err(BuildInfoError::Damaged) => assert!(len < HEADER_BYTES + 1 + "go1.27.3".len(), "{len}"),
            Err(BuildInfoError::NotElf) => panic!("{len}"),
            Ok(part) => {
                assert_eq!(part.go_version, expected.go_version, "{len}");
                assert!(part.module.is_none() || part.module == expected.module, "{len}");
                assert!(expected.settings.starts_with(&part.settings), "{len}");
            }
        }
    }
    let cut = whole.len() - MARK_BYTES - "build\tvcs.revision=0123abcd\n".len();
    assert_eq!(read_build_info_copy(&whole[..cut]).expect("a Go program").settings.len(), 2);
}

#[test]
fn a_copy_of_something_else_is_none() {
    let mut pointed = section(MODULES);
    pointed[15] = 0;
    for copy in [&b""[..], b"#!/bin/sh", &[0; 64], &pointed] {
        assert_eq!(read_build_info_copy(copy), Err(BuildInfoError::NotGo));
    }
    let mut endless = section(MODULES);
    endless[HEADER_BYTES..HEADER_BYTES + 9].fill(0xff);
    assert_eq!(read_build_info_copy(&endless), Err(BuildInfoError::Damaged));
}
