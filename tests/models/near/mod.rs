//! The table of the near-cache.

#[path = "../../../src/store/redis/near/health.rs"]
// Public in the crate.
#[allow(unreachable_pub)]
mod health;
#[path = "../../../src/store/redis/near/shard.rs"]
mod shard;
#[path = "../../../src/store/redis/near/table.rs"]
// The crate uses what the tests do not.
#[allow(dead_code)]
mod table;
mod tests;
