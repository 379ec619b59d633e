//! What the process was started with and formats may name: variables (`%ENVIRONMENT(X)%`) and the
//! node. Only `app` reads them; they are remembered here as they were at the start.

use std::collections::HashMap;
use std::sync::OnceLock;

static START: OnceLock<(HashMap<String, String>, Node)> = OnceLock::new();

/// The names of this proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `node.id`
    pub id: String,
    /// `node.cluster`
    pub cluster: String,
    /// `node.locality.zone`
    pub zone: String,
}

/// Remember the variables and the node. Only the first call counts.
pub fn remember(variables: impl Iterator<Item = (String, String)>, node: Node) {
    let _ = START.set((variables.collect(), node));
}

/// A variable.
pub fn get(name: &str) -> Option<&'static str> {
    START.get()?.0.get(name).map(String::as_str)
}

/// The node.
pub fn node() -> Node {
    START.get().map_or_else(Node::default, |(_, node)| node.clone())
}
