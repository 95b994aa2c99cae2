//! Real servers for the tests: every test starts its own, nothing is shared and nothing is skipped.

mod admin;
mod process;
mod proxy;
mod redis;

pub(crate) use self::{process::Flavor, proxy::Proxy, redis::RedisServer};
