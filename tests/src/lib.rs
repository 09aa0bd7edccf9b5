//! Harness of the end-to-end tests: builds the Go workload with any Go release, runs it bare or under `goscope run`, and reads what goscope stored.
//!
//! Needed: `go` 1.21 or later (other releases come through its toolchain mechanism), `curl`, `promtool`, `script`, `unshare`, `nsenter`, `ip`;
//! `tests/run.sh` installs them. The tests use the binary that `GOSCOPE_BIN` names, else the newest of `target/*/{release,debug}/goscope`; they never build
//! it. Built workloads are kept in `$GOSCOPE_TEST_CACHE` (default `~/.cache/goscope-tests`), named by Go release, flags and a hash of their sources.

pub mod cluster;
pub mod elf;
pub mod evidence;
pub mod fault;
pub mod go;
pub mod http;
pub mod incident;
pub mod network;
pub mod noise;
pub mod ports;
pub mod process;
pub mod session;
pub mod text;
pub mod version;
pub mod wait;
