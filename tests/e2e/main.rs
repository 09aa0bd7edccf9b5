//! The main job, end to end: `goscope run -- ./app` on a real Go service, seen from outside only. One binary, so that it links once and its tests share
//! two cores. See `goscope_e2e` for what must be installed.

mod agent_killed;
mod api;
mod captures;
mod cli;
mod clients;
mod ctl;
mod faults;
mod metrics;
mod secrets;
mod selftest;
mod setting;
mod stream;
mod terminal;
mod workload;
