//! The pod that we run in, as far as its manifest tells us by environment variables. The chart fills them by the downward API, so that nobody needs a
//! permission to ask for them.

use serde::{Deserialize, Serialize};

/// Bytes of one value that are kept. Names and identifiers of Kubernetes are shorter; an image's name may be anything.
pub const VALUE_BYTES_MAX: usize = 512;

/// `pod` in `incident.json` and `meta.json`. What the manifest does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The app's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The image of the app's container, as the pod states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Pod {
    /// Reads `GOSCOPE_POD_NAME`, `_NAMESPACE`, `_UID`, `_NODE`, `_CONTAINER` and `_IMAGE`; `None` where none of them is set.
    #[must_use]
    pub fn of(environment: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let read = |name| environment(name).map(clipped).filter(|value| !value.is_empty());
        let pod = Self {
            name: read("GOSCOPE_POD_NAME"),
            namespace: read("GOSCOPE_POD_NAMESPACE"),
            uid: read("GOSCOPE_POD_UID"),
            node: read("GOSCOPE_POD_NODE"),
            container: read("GOSCOPE_POD_CONTAINER"),
            image: read("GOSCOPE_POD_IMAGE"),
        };
        (pod != Self::default()).then_some(pod)
    }
}

fn clipped(mut value: String) -> String {
    value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(variables: &[(&str, &str)]) -> Option<Pod> {
        Pod::of(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn what_is_not_told_is_absent() {
        assert_eq!(pod(&[]), None);
        assert_eq!(pod(&[("GOSCOPE_POD_NAME", "")]), None, "set, and empty");
        let found = pod(&[("GOSCOPE_POD_NAME", "shop-1"), ("GOSCOPE_POD_NODE", "node-7")]).expect("a pod");
        let written = serde_json::to_value(&found).expect("written");
        assert_eq!(written, serde_json::json!({"name": "shop-1", "node": "node-7"}));
        assert_eq!(serde_json::from_value::<Pod>(written).expect("read"), found);
    }

    #[test]
    fn every_part_has_its_variable() {
        let found = pod(&[
            ("GOSCOPE_POD_NAME", "a"),
            ("GOSCOPE_POD_NAMESPACE", "b"),
            ("GOSCOPE_POD_UID", "c"),
            ("GOSCOPE_POD_NODE", "d"),
            ("GOSCOPE_POD_CONTAINER", "e"),
            ("GOSCOPE_POD_IMAGE", "f"),
        ]);
        let expected = serde_json::json!(
            {"name": "a", "namespace": "b", "uid": "c", "node": "d", "container": "e", "image": "f"}
        );
        assert_eq!(serde_json::to_value(found).expect("written"), expected);
    }

    #[test]
    fn a_value_is_cut_at_its_bound_and_between_characters() {
        let whole = "x".repeat(VALUE_BYTES_MAX);
        for (value, expected) in [
            (whole.clone(), whole.clone()),
            (format!("{whole}y"), whole.clone()),
            (format!("{}é", "x".repeat(VALUE_BYTES_MAX - 1)), "x".repeat(VALUE_BYTES_MAX - 1)),
        ] {
            let found = pod(&[("GOSCOPE_POD_IMAGE", &value)]).expect("a pod");
            assert_eq!(found.image, Some(expected));
        }
    }
}
