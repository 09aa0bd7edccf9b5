//! What this binary is: `goscope --version` and `goscope_build_info` say it with the same words.

/// The release, `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, as 12 hexadecimal digits, or `unknown` where the sources were no git checkout; `GOSCOPE_COMMIT` overrides it at
/// build time.
pub const COMMIT: &str = env!("GOSCOPE_BUILD_COMMIT");

/// The target triple.
pub const TARGET: &str = env!("GOSCOPE_BUILD_TARGET");

/// A macro and no constant, because `concat!` takes literals only.
macro_rules! tls {
    () => {
        "rustls 0.23 (ring)"
    };
}

/// The TLS provider that is linked in.
pub const TLS: &str = tls!();

/// `0.1.0 (commit 0123456789ab, x86_64-unknown-linux-gnu, tls rustls 0.23 (ring))`: what follows the name in `goscope --version`.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("GOSCOPE_BUILD_COMMIT"),
    ", ",
    env!("GOSCOPE_BUILD_TARGET"),
    ", tls ",
    tls!(),
    ")"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_is_made_of_the_parts() {
        assert_eq!(LONG, format!("{VERSION} (commit {COMMIT}, {TARGET}, tls {TLS})"));
    }

    #[test]
    fn the_commit_is_hexadecimal_or_admittedly_unknown() {
        assert!(
            COMMIT == "unknown" || (COMMIT.len() >= 7 && COMMIT.bytes().all(|b| b.is_ascii_hexdigit())),
            "{COMMIT}"
        );
    }
}
