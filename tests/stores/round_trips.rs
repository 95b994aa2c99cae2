//! What things cost at the server: commands, round trips and memory.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use ::redis::cmd;
use tower_bearer_session::{Error, OnFull, RedisStore, SessionStore, TokenManager, store::PutMode};

use crate::{
    harness::Proxy,
    stores::{
        DAY, HOUR, Server, commands_of, forged, limit, listed, log_in, on_every_server, patient,
        session, token_id,
    },
};

/// Of the slow network.
const ROUND_TRIP: Duration = Duration::from_millis(60);

on_every_server!(
    a_check_is_three_reads_whatever_the_number_of_sessions,
    a_check_of_an_unknown_token_is_the_same_three_reads,
    every_call_is_one_round_trip,
    a_session_takes_little_memory,
);

/// `HGET`, `GET` and `TIME`, once each, for a user with one session and for one with 10,000; from the
/// second check on, when the user is cached. No write.
async fn a_check_is_three_reads_whatever_the_number_of_sessions(backend: &impl Server) {
    const CHECKS: u64 = 300;
    let builder = backend.manager_builder().await;
    let manager = builder.load_user(async |id| Ok::<_, Infallible>(Some(id)));
    let manager = manager.build().unwrap();
    let store = backend.store().await;
    for (user_id, sessions) in [("one", 1), ("many", 10_000_i64)] {
        let token = manager.set_token(user_id, None).await.unwrap();
        fill(&store, user_id, sessions - 1).await;
        let token = token.expose_secret();
        manager.add_user(user_id, None).await.unwrap();

        let (commands, ()) = commands_of(backend.server(), async {
            for _ in 0..CHECKS {
                let user = manager
                    .check_token_or_update_user(token, None)
                    .await
                    .unwrap();
                assert_eq!(user.unwrap().detail().unwrap(), user_id);
            }
        })
        .await;
        assert_eq!(commands, three_reads(CHECKS), "of {sessions} sessions");

        let (commands, ()) = commands_of(backend.server(), async {
            for _ in 0..CHECKS {
                assert!(manager.check_token(token).await.unwrap().is_some());
            }
        })
        .await;
        assert_eq!(commands, three_reads(CHECKS), "of {sessions} sessions");
    }
    let many = manager.list_user_tokens("many").await.unwrap();
    assert_eq!(many.len(), 10_000);
}

/// Also of an unknown user, and of a user who has other sessions and is cached.
async fn a_check_of_an_unknown_token_is_the_same_three_reads(backend: &impl Server) {
    let manager: TokenManager = backend.manager().await;
    manager.set_token("al", None).await.unwrap();
    let store = backend.store().await;
    store
        .put_user("al", b"{}", HOUR, PutMode::Replace)
        .await
        .unwrap();
    for user_id in ["al", "nobody"] {
        let (commands, ()) = commands_of(backend.server(), async {
            for n in 0..100 {
                let token = forged(user_id, n);
                let user = manager.check_token_or_update_user(&token, None).await;
                assert!(user.unwrap().is_none());
            }
        })
        .await;
        assert_eq!(commands, three_reads(100), "{user_id}");
    }
}

/// Over a slow network each call takes less than two round trips, at least once of a few times. (The
/// first call of a script takes one more, to teach it to the server.)
async fn every_call_is_one_round_trip(backend: &impl Server) {
    let proxy = Proxy::start(backend.server().port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let store = patient(RedisStore::builder(url)).connect().await.unwrap();
    proxy.set_delay(ROUND_TRIP / 2);

    let (al, id, value) = ("al", token_id(1), &b"value"[..]);
    let (new, max) = (session(HOUR), limit(1, OnFull::EvictOldest));
    takes_one("create", || store.create(al, &id, &new, None)).await;
    takes_one("create at the limit", || store.create("bo", &id, &new, max)).await;
    takes_one("check", || store.check(al, &id)).await;
    takes_one("refresh", || store.refresh(al, &id, DAY)).await;
    takes_one("list", || store.list(al)).await;
    takes_one("delete", || store.delete("bo", &id)).await;
    takes_one("delete_all", || store.delete_all("bo", None)).await;
    takes_one("delete_all but one", || store.delete_all(al, Some(&id))).await;
    takes_one("replace", || {
        store.put_user(al, value, HOUR, PutMode::Replace)
    })
    .await;
    for seen in [None, Some(value)] {
        let mode = PutMode::IfUnchanged(seen);
        takes_one("put_user", || store.put_user(al, value, HOUR, mode)).await;
    }
    takes_one("get_user", || store.get_user(al)).await;
    assert_eq!(listed(&store, al).await, [id]);
}

/// Bytes per session, without metadata, that the server uses in all: for users with one session, with
/// ten and with a thousand.
async fn a_session_takes_little_memory(backend: &impl Server) {
    // So that scripts and buffers are there before the first measurement.
    let store = backend.store().await;
    fill(&store, "somebody", 100).await;
    let mut figures = Vec::new();
    for (users, sessions, most) in [(2000_i64, 1_i64, 200), (500, 10, 70), (5, 1000, 120)] {
        // By itself Valkey would go on freeing in the background, into our measurement.
        backend.server().cmd(&["FLUSHALL", "SYNC"]).await;
        let before = used_memory(backend).await;
        for user in 0..users {
            fill(&store, &format!("{sessions}:{user}"), sessions).await;
        }
        let used = used_memory(backend).await - before;
        figures.push((sessions, used / (users * sessions), most));
    }
    for (sessions, bytes, most) in figures {
        println!("{sessions} per user: {bytes} bytes per session");
        assert!(
            0 < bytes && bytes <= most,
            "{sessions} per user: {bytes} bytes per session"
        );
    }
}

/// Starts so many sessions.
async fn fill(store: &RedisStore, user_id: &str, sessions: i64) {
    for n in 0..sessions {
        log_in(store, user_id, &token_id(n as u128)).await;
    }
}

/// The bytes that the server has allocated.
async fn used_memory(backend: &impl Server) -> i64 {
    let mut client = backend.server().client().await;
    let info: String = cmd("INFO")
        .arg("memory")
        .query_async(&mut client)
        .await
        .unwrap();
    let mut lines = info.lines();
    let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().parse().unwrap()
}

fn three_reads(times: u64) -> BTreeMap<String, u64> {
    ["get", "hget", "time"]
        .map(|name| (name.to_owned(), times))
        .into()
}

/// Runs the call a few times and asserts on the best: a busy machine makes calls slower, never faster.
async fn takes_one<T, F: Future<Output = Result<T, Error>>>(name: &str, call: impl Fn() -> F) {
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        call().await.unwrap();
        best = best.min(start.elapsed());
        if best < 2 * ROUND_TRIP {
            break;
        }
    }
    assert!(
        best >= ROUND_TRIP,
        "{name}: {best:?}: the network is not slow"
    );
    assert!(best < 2 * ROUND_TRIP, "{name}: {best:?}");
}
