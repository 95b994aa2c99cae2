//! Operations over one link: lookups, writes, pings and confirmations.

mod batch;
pub(crate) mod confirm;
#[cfg(test)]
mod faults;
pub(crate) mod lookup;
#[cfg(test)]
mod overload;
pub(crate) mod ping;
pub(crate) mod reply;
pub(crate) mod scan;
#[cfg(test)]
mod simulated;
pub(crate) mod write;
