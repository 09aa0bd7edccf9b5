//! Parsers for everything a Go process prints and serves: bytes in, typed values out.
//!
//! No I/O, no async, no clock, no panic on foreign bytes. Every bound is a constant in [`limits`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::cast_possible_truncation,
        clippy::arithmetic_side_effects
    )
)]

pub mod limits;

mod buildinfo;
mod classifier;
mod fingerprint;
mod frame;
mod header;
mod incident;
mod index_page;
mod origin;
mod race;
mod signal;
mod stacks;
mod text;

pub use buildinfo::{BuildInfo, BuildInfoError, read_build_info, read_build_info_copy};
pub use classifier::{Classifier, Ending, Event};
pub use fingerprint::fingerprint;
pub use incident::{
    ChainLink, CreatedBy, Frame, Goroutine, Goroutines, Incident, IncidentKind, RaceAccess, RaceCreated, SignalInfo,
    Span, Stack, Timestamp, TracebackLevel, TruncatedBy,
};
pub use index_page::parse_index_page;
pub use origin::Origin;
