use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_bearer_session::SessionStore;

use super::{
    super::{Load, patient_store, serve},
    ask, errors, everything_works, manager, sessions_key,
};
use crate::{
    harness::{Cluster, Flavor, RedisServer},
    stores::{listed, log_in, token_id},
};

/// The slots of all users of the load move between the primaries, and no request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_slots_move_under_load() {
    slots_move_under_load(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_slots_move_under_load() {
    slots_move_under_load(Flavor::Valkey).await;
}

async fn slots_move_under_load(flavor: Flavor) {
    let cluster = Cluster::start(flavor).await;
    let server = serve(patient_store(&cluster.url()).await).await;
    let mut load = Load::start(&server).await;
    let users = [
        "stays0", "stays1", "stays2", "stays3", "left", "comes0", "comes1", "comes2",
    ];
    for _ in 0..4 {
        let mut migrations = Vec::new();
        for user in users {
            let (slot, to) = elsewhere(&cluster, user).await;
            migrations.push(cluster.begin_migration(slot, to).await);
        }
        load.runs().await;
        for migration in &migrations {
            // Half of what there is of a user.
            migration.move_keys(1).await;
        }
        load.runs().await;
        for migration in migrations {
            migration.finish().await;
        }
        load.runs().await;
    }
    let failed = load.unavailable();
    load.finish().await;
    let (asks, moves) = redirections(&cluster).await;
    println!("{failed} × 503; {asks} × ASK, {moves} × MOVED");
    assert_eq!(failed, 0);
    assert!(asks > 0 && moves > 0);
}

/// Users who do everything while their slots move, one after the other and for ever, see no error and nothing wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_while_slots_move() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let manager = manager(patient_store(&cluster.url()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut users = JoinSet::new();
    for number in 0..12 {
        let (manager, stop) = (manager.clone(), Arc::clone(&stop));
        users.spawn(async move {
            let user = format!("mover{number}");
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                everything_works(&manager, &user).await;
                rounds += 1;
            }
            rounds
        });
    }
    for number in (0..12).cycle().take(60) {
        assert!(users.try_join_next().is_none(), "an error");
        let (slot, to) = elsewhere(&cluster, &format!("mover{number}")).await;
        cluster.migrate_slot(slot, to).await;
    }
    stop.store(true, Ordering::Relaxed);
    let rounds: u64 = users.join_all().await.into_iter().sum();
    let (asks, moves) = redirections(&cluster).await;
    println!("everything done {rounds} times; {asks} × ASK, {moves} × MOVED");
    assert!(asks > 0 && moves > 0);
}

/// When the old primary of a slot is told first that it is not that any more, both it and the new one send clients to
/// the other for a moment: then clients try again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primaries_may_disagree_for_a_moment() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let known = manager(patient_store(&cluster.url()).await);
    let token = known.set_token("al", None).await.unwrap();
    let from = cluster.primary_of(&sessions_key("al")).await;
    let (slot, to) = elsewhere(&cluster, "al").await;
    let migration = cluster.begin_migration(slot, to).await;
    migration.move_keys(10).await;
    let to_id: String = ask(to, &["CLUSTER", "MYID"]).await;
    from.cmd(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &to_id])
        .await;
    let new = manager(patient_store(&cluster.url()).await);
    let checks = [known, new].map(|manager| {
        let token = token.expose_secret().to_owned();
        tokio::spawn(async move { manager.check_token(&token).await })
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    migration.finish().await;
    for check in checks {
        let user = check.await.unwrap().unwrap();
        assert_eq!(user.expect("a live session").id(), "al");
    }
}

/// A list that is read in pages has every session, whatever the slot does meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_is_complete_while_its_slot_moves() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let store = patient_store(&cluster.url()).await;
    let mut logins = JoinSet::new();
    for task in 0..20 {
        let store = store.clone();
        logins.spawn(async move {
            for n in 0..100 {
                log_in(&store, "al", &token_id(task * 100 + n)).await;
            }
        });
    }
    logins.join_all().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut lists = JoinSet::new();
    for _ in 0..3 {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        lists.spawn(async move {
            let mut lists = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut ids = listed(&store, "al").await;
                ids.sort();
                ids.dedup();
                assert_eq!(ids.len(), 2000);
                lists += 1;
            }
            lists
        });
    }
    for _ in 0..20 {
        let (slot, to) = elsewhere(&cluster, "al").await;
        cluster.migrate_slot(slot, to).await;
        assert!(lists.try_join_next().is_none(), "a wrong list");
    }
    stop.store(true, Ordering::Relaxed);
    let lists: u64 = lists.join_all().await.into_iter().sum();
    println!("{lists} lists during 20 moves");
}

/// Ending all sessions but one reads them one by one only where the hash may not be made anew: at the old primary of a
/// slot on the move. Nowhere is the one lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_one_session_while_its_slot_moves() {
    one_session_is_kept_while_its_slot_moves(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_keeps_one_session_while_its_slot_moves() {
    one_session_is_kept_while_its_slot_moves(Flavor::Valkey).await;
}

async fn one_session_is_kept_while_its_slot_moves(flavor: Flavor) {
    let cluster = Cluster::start(flavor).await;
    let store = patient_store(&cluster.url()).await;
    let kept = token_id(1);
    log_in(&store, "al", &kept).await;
    let from = cluster.primary_of(&sessions_key("al")).await;
    let (slot, to) = elsewhere(&cluster, "al").await;
    // How often each of the two has read all sessions.
    let read_all = async || {
        let mut calls = Vec::new();
        for node in [from, to] {
            let stats = node.command_calls().await;
            calls.push(stats.get("hgetall").copied().unwrap_or(0));
        }
        calls
    };
    let end_others = async || {
        for n in 2..5 {
            log_in(&store, "al", &token_id(n)).await;
        }
        assert_eq!(store.delete_all("al", Some(&kept)).await.unwrap(), 3);
        assert_eq!(listed(&store, "al").await, [kept]);
    };
    end_others().await;
    assert_eq!(read_all().await, [0, 0], "before the move");
    let migration = cluster.begin_migration(slot, to).await;
    end_others().await;
    assert_eq!(read_all().await, [1, 0], "at the old primary");
    assert_eq!(migration.move_keys(1).await, 1);
    end_others().await;
    assert_eq!(read_all().await, [1, 0], "at the new primary, by ASK");
    migration.finish().await;
    end_others().await;
    assert_eq!(read_all().await, [1, 0], "after the move");
}

/// The slot of a user, and a primary that does not hold it.
async fn elsewhere<'a>(cluster: &'a Cluster, user: &str) -> (u16, &'a RedisServer) {
    let key = sessions_key(user);
    let (slot, holder) = (cluster.slot_of(&key).await, cluster.primary_of(&key).await);
    let primaries = &cluster.nodes()[..3];
    let at = primaries
        .iter()
        .position(|node| node.port() == holder.port());
    (slot, &primaries[(at.expect("a primary") + 1) % 3])
}

/// How often clients were sent elsewhere: for now, and for ever.
async fn redirections(cluster: &Cluster) -> (u64, u64) {
    let nodes = cluster.nodes();
    (errors(nodes, "ASK").await, errors(nodes, "MOVED").await)
}
