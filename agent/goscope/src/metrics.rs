//! What the agent tells Prometheus, and its probes: `/metrics`, `/livez` and `/readyz` on a listener of their own, without credentials.
//!
//! There are no statics: [`registry`] makes the agent's registry, each subsystem has a struct of its own series with a `register`, and `app` passes them
//! down. Labels are small enumerations, and each of their values is there from the start, so that a rate is right from the first event on. The list of all
//! series is `agent/METRICS.md`; a test compares it with what is registered.
//!
//! - [`go`]: the target's series, from the latest sample;
//! - [`recorder`]: incidents and spool;
//! - [`readiness`]: what `/readyz` answers;
//! - [`router`]: the routes; [`crate::serve`] serves them.
//!
//! Deliberately absent: OpenMetrics and exemplars, and series of the agent's own process.

use prometheus::{IntGauge, Opts, Registry, TextEncoder};

use crate::version;

pub mod go;
pub mod readiness;
pub mod recorder;
pub mod router;

#[cfg(test)]
mod documented;

/// A registry that holds `goscope_build_info`; everything else is added by its owner.
///
/// # Errors
/// Never in practice: a series is invalid or there twice.
pub fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let build_info = IntGauge::with_opts(
        Opts::new("goscope_build_info", "Version and commit of this agent; always 1.")
            .const_label("version", version::VERSION)
            .const_label("commit", version::COMMIT),
    )?;
    build_info.set(1);
    registry.register(Box::new(build_info))?;
    Ok(registry)
}

/// All series in the Prometheus text format, version 0.0.4.
///
/// # Errors
/// A collector returned a family that has no name or no series: our bug.
pub fn encode(registry: &Registry) -> prometheus::Result<String> {
    TextEncoder::new().encode_to_string(&registry.gather())
}
