//! The image: small, static, without a shell, as a user that is not root.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use goscope_e2e::cluster::image::Image;
use goscope_e2e::elf;
use goscope_e2e::session::goscope;
use serde_json::json;

const BYTES_MAX: u64 = 15 << 20;
const COMPRESSED_BYTES_MAX: u64 = 8 << 20;

#[test]
fn one_static_binary_and_nothing_else() -> anyhow::Result<()> {
    let image = Image::of_goscope()?;
    let files = image.files()?;
    ensure!(files.len() == 1, "{files:?}");
    let [mode, owner, size, _, _, name] = files[0].split_whitespace().collect::<Vec<_>>()[..] else {
        anyhow::bail!("{files:?}");
    };
    ensure!((mode, owner, name) == ("-rwxr-xr-x", "0/0", "goscope"), "{files:?}");
    let binary = fs::read(goscope()?)?;
    ensure!(size.parse::<u64>()? == u64::try_from(binary.len())?, "{files:?}");
    ensure!(!elf::program_header_types(&binary)?.contains(&elf::PT_INTERP), "it asks for a dynamic loader");

    let (manifest, config) = image.documents()?;
    let compressed: u64 = manifest["layers"].as_array().into_iter().flatten().filter_map(|l| l["size"].as_u64()).sum();
    println!("image: {size} bytes, compressed {compressed}");
    ensure!(size.parse::<u64>()? <= BYTES_MAX && (1..=COMPRESSED_BYTES_MAX).contains(&compressed));

    let config = &config["config"];
    ensure!(config["User"] == "65532:65532", "{config}");
    ensure!(config["Entrypoint"] == json!(["/goscope"]) && config["Cmd"] == json!(["agent"]), "{config}");
    let workspace = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))?;
    let version = workspace.lines().find_map(|line| line.strip_prefix("version = ")).context("no version")?;
    for (label, expected) in [
        ("title", "goscope"),
        ("version", version.trim_matches('"')),
        ("revision", "0123456789ab"),
        ("licenses", "Apache-2.0"),
        ("description", "Gatekeeper and flight recorder of a Go service"),
    ] {
        let found = &config["Labels"][format!("org.opencontainers.image.{label}")];
        ensure!(found == expected, "{label}: {found}");
    }
    Ok(())
}
