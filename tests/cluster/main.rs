//! goscope beside a real app under a real kubelet, seen from outside only. `tests/run.sh cluster` starts the node and runs these; see `goscope_e2e::cluster`.

#![expect(clippy::print_stdout, reason = "figures that are printed and never compared")]

mod bad_input;
mod chart;
mod ctl;
mod deaths;
mod documents;
mod faults;
mod harm;
mod helm;
mod image;
mod injection;
mod kept;
mod made_tokens;
mod pod;
mod prometheus;
mod remote;
mod rotation;
mod sidecar;
mod tunnel;
mod versions;
