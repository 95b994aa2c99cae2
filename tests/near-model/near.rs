//! The sources of the crate, and the primitives of loom.

#[path = "../../src/store/redis/near/health.rs"]
// Public in the crate.
#[allow(unreachable_pub)]
mod health;
#[path = "../../src/store/redis/near/shard.rs"]
mod shard;
#[path = "../../src/store/redis/near/table.rs"]
// The crate uses what the tests do not.
#[allow(dead_code)]
pub(crate) mod table;

mod sync {
    pub(super) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no panic with the lock held")
    }
}
