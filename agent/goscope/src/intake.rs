//! The app's standard error: spool reader → classifier → events.
//!
//! Parsing never decides what is kept: the raw bytes stay in the spool until every incident that needs them is stored.

pub mod checkpoint;
pub mod reader;
pub mod stream;
