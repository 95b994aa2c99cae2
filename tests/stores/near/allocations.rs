//! What a hit costs in heap allocations, and about how long it takes.

use std::time::Instant;

use tower_bearer_session::{SessionStore, store::PutMode};

use super::{lasting, near_store, warm};
use crate::{
    harness::{Flavor, RedisServer},
    stores::{HOUR, session, token_id},
};

#[test]
fn a_hit_allocates_nothing() {
    const USERS: usize = 10_000;
    const ROUNDS: usize = 10;
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let (_server, store) = runtime.block_on(async {
        let server = RedisServer::start(Flavor::Redis).await;
        let store = near_store(&server, lasting()).await;
        let mut new = session(HOUR);
        new.metadata = Some("{\"device\":\"phone\"}".into());
        for n in 0..USERS {
            let (user, id) = (format!("user {n}"), token_id(n as u128));
            store.create(&user, &id, &new, None).await.unwrap();
            let put = store.put_user(&user, b"value", HOUR, PutMode::Replace);
            assert!(put.await.unwrap());
        }
        for n in 0..USERS {
            warm(&store, &format!("user {n}"), &token_id(n as u128)).await;
        }
        (server, store)
    });
    let users: Vec<_> = (0..USERS)
        .map(|n| (format!("user {n}"), token_id(n as u128)))
        .collect();
    let mut hits = 0;
    let begun = Instant::now();
    let cost = allocation_counter::measure(|| {
        for (user, id) in users.iter().cycle().take(ROUNDS * USERS) {
            hits += usize::from(store.check_now(user, id).is_some());
        }
    });
    let each = begun.elapsed() / (ROUNDS * USERS) as u32;
    println!(
        "{hits} hits, {each:?} each, {} allocations",
        cost.count_total
    );
    // Of users who share a counter, some had to be read again, and some of those were not.
    assert!(hits > ROUNDS * USERS * 9 / 10, "{hits}");
    assert_eq!(cost.count_total, 0);
}
