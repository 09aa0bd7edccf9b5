//! Writes a configuration as the YAML that reads back as the same: `goscope config show` and `goscope config default`.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::units::{address_rule_text, duration_text, rate_text, size_text};
use super::{Config, LimitConfig, TargetAddress};

/// Whether each setting is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comments {
    On,
    Off,
}

/// `config` in full.
#[must_use]
pub fn render(config: &Config, comments: Comments) -> String {
    let mut out = Out { text: String::new(), comments };
    out.comment("", "goscope's configuration. Every value shown is in force; an environment variable such as GOSCOPE_TARGET_ADDRESS wins over the file.");
    out.section("", "target");
    out.comment("  ", "The Go process that serves /debug/pprof/ and /debug/vars: 127.0.0.1:6060, or unix:///run/goscope/debug.sock (sealed mode).");
    out.leaf("  ", "address", &quoted(&target_text(&config.target)));

    out.section("", "listen");
    out.comment("  ", "The gate. Loopback: kubectl port-forward reaches it, the network does not.");
    out.leaf("  ", "debug", &quoted(&config.listen.debug.to_string()));
    out.comment("  ", "/metrics, /livez and /readyz, without credentials.");
    out.leaf("  ", "metrics", &quoted(&config.listen.metrics.to_string()));
    out.comment("  ", "The gate for clients on the network, over TLS: 0.0.0.0:6062; off while empty. gate.allow must admit their addresses.");
    out.section("  ", "remote");
    let remote = config.listen.remote.as_ref();
    out.leaf("    ", "address", &quoted(&remote.map(|remote| remote.address.to_string()).unwrap_or_default()));
    out.comment("    ", "PEM files, read again when they change. With clientCa only clients with a certificate of that authority may connect.");
    out.section("    ", "tls");
    let file = |path: Option<&PathBuf>| quoted(&path.map(|path| path.display().to_string()).unwrap_or_default());
    out.leaf("      ", "cert", &file(remote.map(|remote| &remote.tls.cert)));
    out.leaf("      ", "key", &file(remote.map(|remote| &remote.tls.key)));
    out.leaf("      ", "clientCa", &file(remote.and_then(|remote| remote.tls.client_ca.as_ref())));

    out.section("", "gate");
    out.section("  ", "tokens");
    out.comment("    ", "Token files; the last path component may hold *. They are read again when they change.");
    out.leaf("    ", "files", &list(config.gate.token_files.iter().map(|p| quoted(&p.display().to_string()))));
    out.comment("  ", "Who may ask, in order, the first match decides; !10.0.0.0/8 refuses. Once there is a list, what matches nothing is refused.");
    out.leaf("  ", "allow", &list(config.gate.allow.iter().map(|rule| quoted(&address_rule_text(*rule)))));
    out.comment("  ", "nginx's limit_req: rate, burst, nodelay. dryRun counts refusals and refuses nothing.");
    out.section("  ", "limits");
    out.leaf("    ", "perSource", &limit(&config.gate.per_source));
    out.leaf("    ", "perIdentity", &limit(&config.gate.per_identity));
    out.comment("    ", "Of /api/v1/, by source and by identity: a page and goscope ctl ask several times a second, and take nothing from the profiles' limits.");
    out.comment("    ", "What begins a capture counts as a profile too: it meets perSource and perIdentity as well.");
    out.leaf("    ", "api", &limit(&config.gate.api));
    out.comment("  ", "The longest profiles that may be asked for, in seconds. More is refused, never shortened.");
    out.section("  ", "caps");
    out.leaf("    ", "cpuSeconds", &config.gate.caps.cpu_seconds);
    out.leaf("    ", "traceSeconds", &config.gate.caps.trace_seconds);

    out.section("", "intake");
    out.comment("  ", "Where goscope exec writes the app's standard error.");
    out.leaf("  ", "spool", &quoted(&config.intake.spool.display().to_string()));

    out.section("", "store");
    out.comment("  ", "Incidents and artifacts, one folder each. The oldest go first when a bound is reached.");
    out.leaf("  ", "path", &quoted(&config.store.path.display().to_string()));
    out.leaf("  ", "maxBytes", &size_text(config.store.max_bytes));
    out.leaf("  ", "maxAge", &duration_text(config.store.max_age));
    out.comment("  ", "What must stay free on the volume.");
    out.leaf("  ", "reserveBytes", &size_text(config.store.reserve_bytes));

    out.section("", "selftest");
    out.comment("  ", "In a pod: ask its ports whether pprof answers there without the gate, at the start and every so often. goscope run never asks.");
    out.leaf("  ", "enabled", &config.selftest.enabled);
    out.leaf("  ", "every", &duration_text(config.selftest.every));
    out.text
}

/// As written in `target.address`.
#[must_use]
pub fn target_text(target: &TargetAddress) -> String {
    match target {
        TargetAddress::Tcp(address) => address.to_string(),
        TargetAddress::Unix(path) => format!("unix://{}", path.display()),
    }
}

struct Out {
    text: String,
    comments: Comments,
}

impl Out {
    fn comment(&mut self, indent: &str, text: &str) {
        if self.comments == Comments::On {
            writeln!(self.text, "{indent}# {text}").expect("writing to a string cannot fail");
        }
    }

    fn section(&mut self, indent: &str, name: &str) {
        writeln!(self.text, "{indent}{name}:").expect("writing to a string cannot fail");
    }

    fn leaf(&mut self, indent: &str, name: &str, value: &dyn Display) {
        writeln!(self.text, "{indent}{name}: {value}").expect("writing to a string cannot fail");
    }
}

fn limit(limit: &LimitConfig) -> String {
    format!(
        "{{ rate: {}, burst: {}, nodelay: {}, dryRun: {} }}",
        rate_text(limit.rate_per_kilosecond),
        limit.burst,
        limit.nodelay,
        limit.dry_run
    )
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A YAML double-quoted scalar: JSON's quoting is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `goscope config default >deploy/goscope.yaml` writes it again.
    #[test]
    fn the_shipped_default_file_is_the_default() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/goscope.yaml");
        let text = std::fs::read_to_string(shipped).expect("deploy/goscope.yaml is there");
        assert_eq!(text, render(&Config::sidecar(), Comments::On));
    }
}
