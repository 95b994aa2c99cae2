//! What is done over one link.

pub(crate) mod confirm;
pub(crate) mod lookup;
pub(crate) mod ping;
pub(crate) mod write;
