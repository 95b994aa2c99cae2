//! The batches of lookups.

#[path = "../../../src/store/redis/ops/batch.rs"]
mod batch;
mod tests;
