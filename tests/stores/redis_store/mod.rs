//! What only a Redis store can show: its keys, its scripts, and how it gets to its server.

mod acl;
mod credentials;
mod foreign_keys;
mod large_values;
mod lifetimes;
mod lookups;
mod many_sessions;
mod pages;
mod pings;
mod prefixes;
mod scripts;
mod tls;
mod urls;

use std::{fmt::Debug, time::SystemTime};

use ::redis::{FromRedisValue, from_redis_value};
use tower_bearer_session::{Error, OnFull, RedisStore, SessionStore, store::PutMode};

use crate::{
    harness::RedisServer,
    stores::{DAY, HOUR, limit, session, token_id},
};

/// Every operation of a store, on every way through it; of one user who has no session before.
async fn everything(store: &RedisStore, user: &str) -> Result<(), Error> {
    let ids = [1, 2, 3, 4, 5, 6].map(token_id);
    let mut new = session(HOUR);
    new.max_lifetime = Some(DAY);
    new.metadata = Some("{}".into());
    for id in &ids[..3] {
        store.create(user, id, &new, None).await?;
    }
    assert!(store.check(user, &ids[0]).await?.is_some());
    assert!(store.refresh(user, &ids[0], 2 * HOUR).await?);
    assert_eq!(store.list(user).await?.len(), 3);
    for (on_full, id) in [
        (OnFull::EvictOldest, &ids[4]),
        (OnFull::EvictLeastRecentlyRefreshed, &ids[5]),
    ] {
        store.create(user, &ids[3], &new, limit(3, on_full)).await?;
        assert!(store.delete(user, &ids[3]).await?);
        store.create(user, id, &new, limit(3, on_full)).await?;
        assert_eq!(store.list(user).await?.len(), 3);
    }
    assert!(store.check(user, &ids[3]).await?.is_none());
    assert_eq!(store.delete_all(user, Some(&ids[5])).await?, 2);
    assert_eq!(store.delete_all(user, None).await?, 1);

    for (mode, done) in [
        (PutMode::Replace, true),
        (PutMode::IfUnchanged(None), false),
        (PutMode::IfUnchanged(Some(b"value")), true),
        (PutMode::IfUnchanged(Some(b"other")), false),
    ] {
        assert_eq!(store.put_user(user, b"value", HOUR, mode).await?, done);
    }
    assert_eq!(store.get_user(user).await?.as_deref(), Some(&b"value"[..]));
    Ok(())
}

/// Asks the server, past the store.
async fn ask<T: FromRedisValue + Debug>(server: &RedisServer, command: &[&str]) -> T {
    let answer = server.cmd(command).await;
    from_redis_value(answer).expect("an answer of this type")
}

/// Milliseconds since the Unix epoch, as Redis counts.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.expect("a time after 1970").as_millis();
    i64::try_from(millis).expect("a time that Redis can have")
}
