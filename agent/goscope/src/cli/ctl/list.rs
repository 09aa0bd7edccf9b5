//! What `incidents` and `artifacts` have in common: which items, how many, in which form.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::{Output, Place, answer, say};
use crate::cluster::target::{Target, query_value};
use crate::config::units::parse_duration;

/// Items that the API gives at once.
const LIMIT_MAX: u16 = 500;

/// Which items.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME, pod/NAME or the name of a pod
    #[arg(value_name = "TARGET", value_parser = Target::parse)]
    target: Option<Target>,
    /// Only of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only from this pod or host, where several share a volume
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only the last, as 30m, 24h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// At most this many
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=i64::from(LIMIT_MAX)))]
    limit: u16,
    /// How to answer
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl Filter {
    /// Asks for `path` and prints what comes; `further` are parameters of the one list only.
    pub(super) async fn run<T: for<'a> Deserialize<'a>>(
        self,
        place: &Place,
        path: &str,
        further: &[(&str, Option<&str>)],
        none: &str,
        render: impl FnOnce(&[T], Timestamp) -> String,
    ) -> anyhow::Result<()> {
        let mut api = place.api(self.target.as_ref()).await?;
        let now = Timestamp::now();
        let document: Value = api.get(&self.path(path, further, now)?).await?;
        if self.output == Output::Json {
            return answer(&format!("{document:#}\n"));
        }
        let page = Page::<T>::deserialize(&document)?;
        if page.items.is_empty() {
            say(none);
            return Ok(());
        }
        answer(&render(&page.items, now))?;
        if page.next.is_some() {
            say(&format!(
                "there are more than these {}; --limit shows up to {LIMIT_MAX}, --since and --kind narrow",
                page.items.len()
            ));
        }
        Ok(())
    }

    fn path(&self, path: &str, further: &[(&str, Option<&str>)], now: Timestamp) -> anyhow::Result<String> {
        let since = match self.since {
            Some(since) => {
                let then = now.checked_sub(SignedDuration::try_from(since)?)?;
                Some(Timestamp::from_second(then.as_second())?.to_string())
            }
            None => None,
        };
        let own = [("kind", self.kind.as_deref()), ("host", self.host.as_deref()), ("since", since.as_deref())];
        let mut path = format!("{path}?limit={}", self.limit);
        for (name, value) in own.iter().chain(further) {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", query_value(value)));
            }
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Call {
        #[command(flatten)]
        filter: Filter,
    }

    #[test]
    fn the_question() {
        let now: Timestamp = "2026-11-23T12:00:00.9Z".parse().expect("a time");
        let path = |call: &[&str], further: &[(&str, Option<&str>)]| {
            let call = Call::try_parse_from([&["x"], call].concat()).expect("a call");
            call.filter.path("/api/v1/incidents", further, now).expect("a path")
        };
        assert_eq!(path(&[], &[]), "/api/v1/incidents?limit=50");
        assert_eq!(path(&["--limit", "500"], &[("incident", None)]), "/api/v1/incidents?limit=500");
        assert_eq!(
            path(&["--since", "24h", "--kind", "panic&x=1", "--host", "shop-0"], &[("incident", Some("a b"))]),
            "/api/v1/incidents?limit=50&kind=panic%26x%3D1&host=shop-0&since=2026-11-22T12%3A00%3A00Z&incident=a%20b"
        );
        for wrong in [["--limit", "0"], ["--limit", "501"], ["--since", "1"], ["--since", "-1h"]] {
            assert!(Call::try_parse_from(["x"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
