//! Which server an operation goes to.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod node;
