//! The goscope binary's parts: everything that touches the world. `agent/ARCHITECTURE.md` is the map.

pub mod api;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod collect;
pub mod config;
pub mod gate;
pub mod intake;
pub mod launcher;
pub mod metrics;
pub mod model;
pub mod notice;
pub mod pod;
pub mod recorder;
pub mod selftest;
pub mod serve;
pub mod spool;
pub mod stamp;
pub mod store;
pub mod target;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod version;
