//! Routing of operations to servers.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod node;
