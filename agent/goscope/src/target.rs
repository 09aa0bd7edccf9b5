//! The Go process as the agent sees it: a server of `/debug/pprof/` and `/debug/vars` on a TCP port or a unix socket.
//!
//! - [`connect`] opens the connections, for our own questions as for those that the gate passes on;
//! - [`client`] asks one bounded question;
//! - [`profile`] is what can be asked for, and [`upstream`] asks for it and streams the answer;
//! - [`opening`] says what a program needs that has no such server;
//! - [`sampler`] asks regularly how the target is and keeps the latest answer for whoever wants it.

pub mod client;
pub mod connect;
pub mod opening;
pub mod profile;
pub mod sampler;
pub mod upstream;
