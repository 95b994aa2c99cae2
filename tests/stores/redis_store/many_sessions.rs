//! Users with very many sessions: no command for them keeps the server from the others for long.

use std::{ops::Range, time::Duration};

use ::redis::{FromRedisValue, Value};
use tower_bearer_session::{
    Error, ErrorKind, OnFull, RedisStore, SessionStore, TokenId,
    store::{Created, SessionChange, SessionLimit},
};

use super::{ask, millis};
use crate::stores::{
    HOUR, Server, is_live, limit, live_session, log_in, replacement, session, token_id,
};

pub(super) const KEY: &str = "tbs:tokens:{al}";
pub(super) const MANY: u128 = 100_000;
/// Three times what a command may take, so that a busy machine does not matter.
const LONGEST: Duration = Duration::from_millis(60);
/// How many bytes of metadata a session has: none, or as much as an application may well keep there.
const METADATA: [usize; 2] = [0, 1024];

mod redis {
    crate::stores::cases!(
        Redis: logging_out_all_but_one_is_one_short_command,
        logging_out_all_is_one_short_command,
        a_change_that_ends_the_others_is_one_short_command,
        a_login_at_the_largest_limit_is_short,
        a_login_with_a_new_limit_is_made_of_short_commands,
        a_login_that_is_rejected_is_short,
        expired_sessions_are_no_burden,
        a_hash_without_an_expiry_is_no_burden,
        a_list_is_made_of_short_commands,
        operations_on_one_of_very_many_sessions_are_short
    );
}

async fn logging_out_all_but_one_is_one_short_command(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        let kept = fill(backend, &store, 0..MANY, HOUR, bytes).await;
        let longest = longest_command(backend, async || {
            let removed = store.delete_all("al", Some(&kept)).await.unwrap();
            assert_eq!(removed, MANY as u64);
        });
        let longest = longest.await;
        assert!(is_live(&store, "al", &kept).await);
        assert_eq!(len(backend).await, 1);
        longest
    })
    .await;
}

async fn logging_out_all_is_one_short_command(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        fill(backend, &store, 0..MANY, HOUR, bytes).await;
        longest_command(backend, async || {
            let removed = store.delete_all("al", None).await.unwrap();
            assert_eq!(removed, MANY as u64 + 1);
        })
        .await
    })
    .await;
}

async fn a_change_that_ends_the_others_is_one_short_command(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        let kept = fill(backend, &store, 0..MANY, HOUR, bytes).await;
        let mut change = replacement(kept, token_id(MANY * 4), HOUR);
        change.end_others = true;
        let longest = longest_command(backend, async || {
            let updated = store.update("al", &kept, &change).await.unwrap();
            assert_eq!(updated.unwrap().ended, MANY as u64);
        });
        let longest = longest.await;
        assert!(is_live(&store, "al", &kept).await);
        assert_eq!(len(backend).await, 1);
        longest
    })
    .await;
}

async fn a_login_at_the_largest_limit_is_short(backend: &impl Server) {
    let store = backend.store().await;
    let max = SessionLimit::MAX;
    for on_full in [
        OnFull::EvictOldest,
        OnFull::EvictLeastRecentlyRefreshed,
        OnFull::Reject,
    ] {
        best_of_a_few(backend, async |bytes| {
            fill(backend, &store, 0..u128::from(max) - 1, HOUR, bytes).await;
            longest_command(backend, async || {
                match try_log_in(&store, limit(max, on_full)).await {
                    Ok(created) => assert_eq!(created.evicted.len(), 1),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::SessionLimit),
                }
            })
            .await
        })
        .await;
        assert_eq!(len(backend).await, u64::from(max));
    }
}

/// Sessions beyond a limit that is new end page by page, and are all reported, the first to go first.
async fn a_login_with_a_new_limit_is_made_of_short_commands(backend: &impl Server) {
    let store = backend.store().await;
    for on_full in [OnFull::EvictOldest, OnFull::EvictLeastRecentlyRefreshed] {
        best_of_a_few(backend, async |bytes| {
            let youngest = fill(backend, &store, 0..MANY, HOUR, bytes).await;
            let new = token_id(MANY * 2);
            let longest = longest_command(backend, async || {
                let created = try_log_in(&store, limit(10, on_full)).await.unwrap();
                assert_eq!(created.evicted.len() as u128, MANY + 1 - 9);
                let evicted = &created.evicted;
                assert!(evicted.is_sorted_by_key(|(_, it)| it.created_at));
            });
            let longest = longest.await;
            assert_eq!(store.list("al").await.unwrap().len(), 10);
            assert!(is_live(&store, "al", &youngest).await);
            assert!(is_live(&store, "al", &new).await);
            longest
        })
        .await;
    }
}

async fn a_login_that_is_rejected_is_short(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        fill(backend, &store, 0..MANY, HOUR, bytes).await;
        let longest = longest_command(backend, async || {
            for max in [1, 10, SessionLimit::MAX] {
                let max = limit(max, OnFull::Reject);
                let error = try_log_in(&store, max).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::SessionLimit);
            }
        });
        let longest = longest.await;
        assert_eq!(len(backend).await as u128, MANY + 1);
        longest
    })
    .await;
}

/// With any limit they make room, and go.
async fn expired_sessions_are_no_burden(backend: &impl Server) {
    let store = backend.store().await;
    for on_full in [OnFull::EvictOldest, OnFull::Reject] {
        best_of_a_few(backend, async |bytes| {
            let live = fill(backend, &store, 0..MANY, Duration::ZERO, bytes).await;
            let longest = longest_command(backend, async || {
                let max = limit(2, on_full);
                let created = try_log_in(&store, max).await.unwrap();
                assert!(created.evicted.is_empty());
            });
            let longest = longest.await;
            assert!(is_live(&store, "al", &live).await);
            assert_eq!(len(backend).await, 2);
            longest
        })
        .await;
    }
}

/// As after a restore from a backup.
async fn a_hash_without_an_expiry_is_no_burden(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        let id = fill(backend, &store, 0..MANY, HOUR, bytes).await;
        backend.server().cmd(&["PERSIST", KEY]).await;
        let longest = longest_command(backend, async || {
            log_in(&store, "al", &token_id(MANY * 2)).await;
            assert!(store.refresh("al", &id, 2 * HOUR).await.unwrap());
        });
        let longest = longest.await;
        let end: i64 = ask(backend.server(), &["PEXPIRETIME", KEY]).await;
        let expires_at = live_session(&store, "al", &id).await.expires_at;
        assert!(end == -1 || end >= millis(expires_at), "{end}");
        longest
    })
    .await;
}

async fn a_list_is_made_of_short_commands(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        fill(backend, &store, 0..MANY, HOUR, bytes).await;
        longest_command(backend, async || {
            let listed = store.list("al").await.unwrap();
            assert_eq!(listed.len() as u128, MANY + 1);
        })
        .await
    })
    .await;
}

async fn operations_on_one_of_very_many_sessions_are_short(backend: &impl Server) {
    let store = backend.store().await;
    best_of_a_few(backend, async |bytes| {
        let id = fill(backend, &store, 0..MANY, HOUR, bytes).await;
        longest_command(backend, async || {
            log_in(&store, "al", &token_id(MANY * 2)).await;
            let version = live_session(&store, "al", &id).await.version();
            let mut change = SessionChange::refresh(2 * HOUR);
            change.if_version = Some(version);
            assert!(store.update("al", &id, &change).await.unwrap().is_some());
            assert!(store.refresh("al", &id, HOUR).await.unwrap());
            assert!(store.delete("al", &id).await.unwrap());
        })
        .await
    })
    .await;
}

/// Asks for one more session of `al`.
async fn try_log_in(store: &RedisStore, limit: Option<SessionLimit>) -> Result<Created, Error> {
    let id = token_id(MANY * 2);
    store.create("al", &id, &session(HOUR), limit).await
}

/// Gives `al` these sessions, the oldest first, which live for `ttl` and have so many bytes of metadata (and then as many
/// replaced tokens as there can be), and another one that is younger than they and lives.
pub(super) async fn fill(
    backend: &impl Server,
    store: &RedisStore,
    numbers: Range<u128>,
    ttl: Duration,
    metadata: usize,
) -> TokenId {
    const CHUNK: usize = 1000;
    let parts = match metadata {
        0 => vec![0],
        len => {
            let len_of = (len as u32).to_be_bytes();
            let tokens = [[9; 16].as_slice(), &[16], &[1; 22 * 16]].concat();
            [&[4 | 8], &len_of[..], &vec![b'm'; len], &tokens].concat()
        }
    };
    store.delete_all("al", None).await.unwrap();
    let youngest = token_id(MANY * 3);
    let record = log_in(store, "al", &youngest).await;
    let now = millis(record.created_at);
    let mut client = backend.server().client().await;
    let be = |millis: i64| millis.to_be_bytes()[2..].to_vec();
    let numbers: Vec<u128> = numbers.collect();
    for chunk in numbers.chunks(CHUNK) {
        let mut set = ::redis::cmd("HSET");
        set.arg(KEY);
        for &number in chunk {
            let began = now - 200_000 + number as i64;
            let expires = if ttl.is_zero() {
                began + 1
            } else {
                now + ttl.as_millis() as i64
            };
            let header = [be(expires), vec![1], be(began), be(began)].concat();
            let record = [&header[..], &parts].concat();
            set.arg(token_id(number).to_string()).arg(record);
        }
        let _: Value = set.query_async(&mut client).await.unwrap();
    }
    youngest
}

/// Takes the best of a few rounds with each size of metadata: a busy machine makes commands slower, never faster.
async fn best_of_a_few(backend: &impl Server, round: impl AsyncFn(usize) -> Duration) {
    let set = ["CONFIG", "SET", "slowlog-log-slower-than", "1000"];
    backend.server().cmd(&set).await;
    for bytes in METADATA {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            best = best.min(round(bytes).await);
            if best < LONGEST {
                break;
            }
        }
        println!("the longest command took {best:?}, with {bytes} bytes of metadata");
        assert!(best < LONGEST, "{best:?}, with {bytes} bytes of metadata");
    }
}

/// How long the longest command took, by the server's own account.
async fn longest_command(backend: &impl Server, work: impl AsyncFnOnce()) -> Duration {
    backend.server().cmd(&["SLOWLOG", "RESET"]).await;
    work().await;
    let log: Vec<Vec<Value>> = ask(backend.server(), &["SLOWLOG", "GET", "-1"]).await;
    let micros = log
        .iter()
        .map(|entry| u64::from_redis_value_ref(&entry[2]).unwrap());
    Duration::from_micros(micros.max().unwrap_or(0))
}

/// How many sessions are in the key, dead or alive.
async fn len(backend: &impl Server) -> u64 {
    ask(backend.server(), &["HLEN", KEY]).await
}
