//! From parsed values to findings and pictures: pure functions, values in, text and documents out.
//!
//! No file, socket, task, environment or clock. Depends on `goscope-formats` only.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod document;
pub mod groups;
pub mod report;
pub mod text;
