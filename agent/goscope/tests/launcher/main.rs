//! The launcher as a process: real programs started through `goscope exec` and `goscope run`, compared with the same programs started bare.

mod harness;
mod identity;
mod signals;
mod spool;
mod status;
mod stream;
mod terminal;
