//! Harness of the cluster tests: images from the binary under test, a namespace for every case, the node's processes and volumes from outside.
//!
//! The node is a real Kubernetes in its own network and process namespaces, started by `tests/run.sh cluster` through `tests/cluster/node.sh`.

pub mod image;
pub mod namespace;
pub mod node;
