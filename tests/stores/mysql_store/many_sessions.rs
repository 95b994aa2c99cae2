//! Users with very many sessions: what ends them all, or many of them, fits into the default deadline.

use std::time::Duration;

use tower_bearer_session::{ErrorKind, MySqlStore, OnFull, SessionStore};

use super::eventually;
use crate::{
    harness::{MariaDb, Proxy},
    stores::{Backend, DAY, HOUR, MySql, is_live, limit, listed, log_in, session, token_id},
};

/// A server, and a store with the default deadline and no purge.
async fn start() -> (MariaDb, MySqlStore) {
    let mysql = MariaDb::start_with(&["--innodb-buffer-pool-size=256M"]).await;
    let store = MySqlStore::builder(mysql.url()).purge_interval(None);
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    (mysql, store)
}

/// Sessions that began one after the other, the `n`th with the token id `n`.
pub(crate) fn fill(table: &str, user_id: &str, count: usize) -> String {
    format!(
        "INSERT INTO {table} \
         (user_id, token_id, created_at, refreshed_at, expires_at, ends_at, metadata) \
         SELECT '{user_id}', UNHEX(LPAD(HEX(seq), 32, '0')), seq, {count} - seq, 4102444800000, NULL, \
         REPEAT('x', 100) FROM seq_1_to_{count}"
    )
}

/// A list that goes on page after page ends with an error of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_an_overall_deadline() {
    let (mysql, store) = start().await;
    mysql.sql(&fill("tbs_sessions", "al", 100_000)).await;
    let proxy = Proxy::start(mysql.port()).await;
    let url = mysql
        .url()
        .replace(&format!(":{}", mysql.port()), &format!(":{}", proxy.port()));
    let slow = MySqlStore::builder(url).deadline(Duration::from_secs(1));
    let slow = slow.purge_interval(None).connect().await.unwrap();
    // All pages take longer than twenty deadlines, each of them a part of one.
    proxy.set_delay(Duration::from_millis(65));
    let listed = slow.list("al").await.map(|sessions| sessions.len());
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert_eq!(store.list("al").await.unwrap().len(), 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_200_000_sessions_fits_into_the_default_deadline() {
    const SESSIONS: usize = 200_000;
    let (mysql, store) = start().await;
    mysql.sql(&fill("tbs_sessions", "al", SESSIONS)).await;
    // Only what is to be done in time has the default deadline.
    let patient = MySqlStore::builder(mysql.url()).deadline(Duration::from_secs(30));
    let patient = patient.purge_interval(None).connect().await.unwrap();
    log_in(&patient, "bo", &token_id(1)).await;
    let ids = [1, 77_777, SESSIONS as u128].map(token_id);
    for keep in [Some(ids[1]), None] {
        let mut ended = 0;
        eventually("a logout of all", async || {
            let done = store.delete_all("al", keep.as_ref()).await;
            ended = ended.max(*done.as_ref().unwrap_or(&0));
            done.is_ok()
        })
        .await;
        let expected = if keep.is_some() { SESSIONS - 1 } else { 1 };
        assert_eq!(ended, expected as u64);
        for id in &ids {
            assert_eq!(is_live(&patient, "al", id).await, keep == Some(*id));
        }
        let left: Vec<_> = keep.into_iter().collect();
        assert_eq!(listed(&patient, "al").await, left);
    }
    assert!(is_live(&patient, "bo", &token_id(1)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_newly_set_on_100_000_sessions_fits_into_the_default_deadline() {
    const SESSIONS: usize = 100_000;
    let (mysql, store) = start().await;
    let patient = MySqlStore::builder(mysql.url()).deadline(Duration::from_secs(30));
    let patient = patient.purge_interval(None).connect().await.unwrap();
    for (user_id, on_full, max) in [
        ("reject", OnFull::Reject, 5),
        ("oldest", OnFull::EvictOldest, 5),
        ("refreshed", OnFull::EvictLeastRecentlyRefreshed, 1000),
    ] {
        mysql.sql(&fill("tbs_sessions", user_id, SESSIONS)).await;
        let id = token_id(u128::MAX);
        let mut created = None;
        eventually("a login", async || {
            let (new, limit) = (session(HOUR), limit(max, on_full));
            match store.create(user_id, &id, &new, limit).await {
                Err(error) if error.kind() == ErrorKind::Timeout => false,
                done => {
                    created = Some(done);
                    true
                }
            }
        })
        .await;
        let created = created.unwrap();
        if on_full == OnFull::Reject {
            assert_eq!(created.unwrap_err().kind(), ErrorKind::SessionLimit);
            assert!(!is_live(&patient, user_id, &id).await);
            continue;
        }
        let kept = max as usize - 1;
        let mut left = listed(&patient, user_id).await;
        left.sort();
        let newest = (SESSIONS - kept + 1..=SESSIONS).map(|n| token_id(n as u128));
        let last_refreshed = (1..=kept).map(|n| token_id(n as u128));
        let mut expected: Vec<_> = match on_full {
            OnFull::EvictOldest => newest.collect(),
            _ => last_refreshed.collect(),
        };
        expected.push(id);
        expected.sort();
        assert!(left == expected, "{user_id}: {} are left", left.len());
        // The first to go, first.
        let evicted: Vec<_> = created.unwrap().evicted.iter().map(|(id, _)| *id).collect();
        let first = |n| match on_full {
            OnFull::EvictOldest => token_id(1 + n as u128),
            _ => token_id((SESSIONS - n) as u128),
        };
        assert!(evicted.len() >= 512, "{}", evicted.len());
        assert!(
            (0..).zip(&evicted).all(|(n, id)| *id == first(n)),
            "{user_id}"
        );
    }
}

/// Logins at a limit that is as large as it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_at_a_full_limit_of_100_000_fits_into_the_default_deadline() {
    let (mysql, store) = start().await;
    mysql.sql(&fill("tbs_sessions", "al", 100_000)).await;
    let full = limit(100_000, OnFull::EvictOldest);
    let mut evicted = Vec::new();
    eventually("a login", async || {
        let id = token_id(u128::MAX);
        let created = store.create("al", &id, &session(HOUR), full).await;
        let done = created.is_ok();
        evicted.extend(created.into_iter().flat_map(|created| created.evicted));
        done
    })
    .await;
    let evicted: Vec<_> = evicted.iter().map(|(id, _)| *id).collect();
    assert_eq!(evicted, [token_id(1)]);
}

/// What ended together with very many others behaves as if it had never been, until it is removed, and afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_ended_with_many_others_never_come_back() {
    const SESSIONS: usize = 2000;
    let tables = MySql::start().await;
    let builder = || tables.builder().purge_interval(None);
    let store = builder().connect().await.unwrap();
    let count = async |table: &str| {
        let statement = format!("SELECT COUNT(*) FROM {}", tables.table(table));
        tables.server().number(&statement).await
    };
    let fill = fill(&tables.table("sessions"), "al", SESSIONS);
    tables.server().sql(&fill).await;
    let (first, last, kept) = (token_id(1), token_id(SESSIONS as u128), token_id(1000));
    let ended = store.delete_all("al", Some(&kept)).await.unwrap();
    assert_eq!(ended, SESSIONS as u64 - 1);
    for id in [first, last] {
        assert!(!is_live(&store, "al", &id).await);
        assert!(!store.refresh("al", &id, DAY).await.unwrap());
        assert!(!store.delete("al", &id).await.unwrap());
        assert_eq!(
            store.delete_all("al", Some(&id)).await.unwrap_or(9),
            u64::from(id == first)
        );
        assert!(!is_live(&store, "al", &id).await);
    }
    // Neither do they count, nor is one excepted that has ended.
    assert!(!is_live(&store, "al", &kept).await);
    let two = limit(2, OnFull::Reject);
    for id in [last, kept] {
        let created = store.create("al", &id, &session(HOUR), two).await.unwrap();
        assert!(created.evicted.is_empty());
    }
    let error = store.create("al", &first, &session(HOUR), two).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::SessionLimit);
    let live = [kept, last];
    let listed_now = async || {
        let mut listed = listed(&store, "al").await;
        listed.sort();
        listed
    };
    assert_eq!(listed_now().await, live);
    assert!(store.refresh("al", &kept, DAY).await.unwrap());

    let purging = builder().purge_interval(Duration::from_millis(20));
    let purging = purging.connect().await.unwrap();
    eventually("only what lives is left", async || {
        count("sessions").await == 2 && count("cutoffs").await == 0
    })
    .await;
    assert_eq!(listed_now().await, live);
    // And all over again.
    tables
        .server()
        .sql(&fill.replace("INSERT", "INSERT IGNORE"))
        .await;
    let ended = purging.delete_all("al", Some(&last)).await.unwrap();
    assert!(ended > 1000, "{ended}");
    assert_eq!(listed_now().await, [last]);
    eventually("only what lives is left", async || {
        count("sessions").await == 1 && count("cutoffs").await == 0
    })
    .await;
    assert_eq!(listed_now().await, [last]);
}
