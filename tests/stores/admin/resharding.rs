//! Slots that move, and primaries that are replaced, during a listing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tower_bearer_session::{
    Error, ErrorKind, RedisStore, SessionStore,
    store::{UserCursor, UserPage},
};

use crate::{
    eventually,
    harness::{Cluster, Flavor, RedisServer},
    stores::{log_in, patient, token_id},
};

const USERS: usize = 3000;

/// A cluster with the sessions of many users.
async fn scene(flavor: Flavor) -> (Cluster, RedisStore) {
    let cluster = Cluster::start(flavor).await;
    let store = patient(RedisStore::builder(cluster.url()))
        .connect()
        .await
        .unwrap();
    for n in 0..USERS {
        log_in(&store, &format!("user{n}"), &token_id(1)).await;
    }
    (cluster, store)
}

/// The rest of a listing.
async fn rest(
    store: &RedisStore,
    mut after: Option<UserCursor>,
) -> Result<BTreeSet<String>, Error> {
    let mut users = BTreeSet::new();
    loop {
        let page: UserPage = store.list_users(after.as_ref()).await?;
        users.extend(page.users);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(users),
        }
    }
}

fn assert_moved(listed: Result<BTreeSet<String>, Error>) {
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error
            .to_string()
            .contains("slots of the cluster are being moved"),
        "{error}"
    );
}

/// The slot of a user, its primary and another one.
async fn slot_of<'a>(cluster: &'a Cluster, user: &str) -> (u16, &'a RedisServer, &'a RedisServer) {
    let key = format!("tbs:tokens:{{{user}}}");
    let (slot, from) = (cluster.slot_of(&key).await, cluster.primary_of(&key).await);
    let mut others = cluster.nodes()[..3].iter();
    let to = others.find(|node| node.port() != from.port());
    (slot, from, to.expect("another primary"))
}

/// No listing is complete while a slot is on the move, whatever it began with; afterwards a new one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_notices_a_slot_on_the_move() {
    a_slot_on_the_move_is_noticed(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_notices_a_slot_on_the_move() {
    a_slot_on_the_move_is_noticed(Flavor::Valkey).await;
}

async fn a_slot_on_the_move_is_noticed(flavor: Flavor) {
    let (cluster, store) = scene(flavor).await;
    assert_eq!(rest(&store, None).await.unwrap().len(), USERS);
    for user in ["user0", "user1", "user2"] {
        let (slot, _, to) = slot_of(&cluster, user).await;
        let begun = store.list_users(None).await.unwrap().next;
        assert!(begun.is_some());
        let migration = cluster.begin_migration(slot, to).await;
        assert_moved(rest(&store, None).await);
        assert_moved(rest(&store, begun.clone()).await);
        migration.move_keys(1).await;
        assert_moved(rest(&store, None).await);
        migration.finish().await;
        // Nothing moves any more, but the keys are elsewhere.
        assert_moved(rest(&store, begun).await);
        // Until every node knows, a listing may fail.
        let mut users = BTreeSet::new();
        eventually("a listing", async || match rest(&store, None).await {
            Ok(listed) => {
                users = listed;
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                false
            }
        })
        .await;
        assert_eq!(users.len(), USERS);
    }
}

/// Slots go there and back all the time: a listing that succeeds is complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_that_succeeds_is_complete() {
    let (cluster, store) = scene(Flavor::Redis).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, listing) = (Arc::clone(&stop), store.clone());
    let listings = tokio::spawn(async move {
        let (mut complete, mut given_up) = (0, 0);
        while !stopped.load(Ordering::SeqCst) {
            match rest(&listing, None).await {
                Ok(users) => {
                    assert_eq!(users.len(), USERS);
                    complete += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    given_up += 1;
                }
            }
        }
        (complete, given_up)
    });
    for n in 0..30 {
        let (slot, _, to) = slot_of(&cluster, &format!("user{}", n % 3)).await;
        cluster.migrate_slot(slot, to).await;
        assert!(!listings.is_finished(), "an incomplete listing");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let (complete, given_up) = listings.await.unwrap();
    println!("{complete} complete listings, {given_up} given up");
    assert!(given_up > 0);
}

/// A primary that fails over during a listing ends it only if its keys were being read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_ends_a_listing_only_at_the_server_that_is_read() {
    let (cluster, store) = scene(Flavor::Redis).await;
    // The first page is from the primary of slot 0, which has more.
    let page = store.list_users(None).await.unwrap();
    let [first, _, last] = &cluster.nodes()[..3] else {
        panic!("three primaries");
    };
    for (node, is_read) in [(last, false), (first, true)] {
        node.cmd(&["WAIT", "1", "10000"]).await;
        let key = (0..).map(|n| format!("key{n}"));
        let mut of_node = None;
        for key in key {
            if cluster.primary_of(&key).await.port() == node.port() {
                of_node = Some(key);
                break;
            }
        }
        let key = of_node.expect("a key of this node");
        node.kill();
        cluster.new_primary(&key, node).await;
        eventually("all primaries", async || store.ping().await.is_ok()).await;
        let mut outcome = None;
        eventually("an answer", async || {
            match rest(&store, page.next.clone()).await {
                Err(error) if !error.to_string().contains("has been restarted") => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    false
                }
                listed => {
                    outcome = Some(listed);
                    true
                }
            }
        })
        .await;
        match outcome.expect("an answer") {
            Ok(mut users) => {
                assert!(!is_read);
                users.extend(page.users.iter().cloned());
                assert_eq!(users.len(), USERS);
            }
            Err(error) => assert!(is_read, "{error}"),
        }
    }
}
