use std::time::Duration;

use tower_bearer_session::{MySqlStore, SessionStore, store::PutMode, test_util::Backend as _};

use super::eventually;
use crate::{
    harness::MariaDb,
    stores::{Backend, HOUR, MySql, SHORT, at_once, is_live, listed, log_in, session, token_id},
};

/// A few instances remove what has expired, while others log in and out; what lives stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_purge_at_once() {
    let tables = MySql::start().await;
    let mut stores = Vec::new();
    for _ in 0..4 {
        let builder = tables.builder().purge_interval(Duration::from_millis(20));
        stores.push(builder.connect().await.unwrap());
    }
    let done = at_once(8, |n| {
        let store = stores[n % 4].clone();
        async move {
            for i in 0..40 {
                let user = format!("al{}", i % 5);
                let id = |kind| token_id((n * 1000 + i * 10 + kind) as u128);
                let dies = session(SHORT);
                store.create(&user, &id(0), &dies, None).await.unwrap();
                store
                    .put_user(&format!("{n} {i}"), b"dies", SHORT, PutMode::Replace)
                    .await
                    .unwrap();
                log_in(&store, &user, &id(1)).await;
                if i % 4 == 0 {
                    // Replaces a row that may be about to go.
                    store
                        .create(&user, &id(0), &session(HOUR), None)
                        .await
                        .unwrap();
                    store.delete_all(&format!("bo{n}"), None).await.unwrap();
                }
            }
        }
    });
    done.await;
    for n in 0..8 {
        let user = format!("lives {n}");
        assert!(
            stores[0]
                .put_user(&user, b"lives", HOUR, PutMode::Replace)
                .await
                .unwrap()
        );
    }
    let count = async |table| {
        let statement = format!("SELECT COUNT(*) FROM {}", tables.table(table));
        tables.server().number(&statement).await
    };
    eventually("only what lives is left", async || {
        count("users").await == 8
    })
    .await;
    let live = async || {
        let mut live = 0;
        for n in 0..5 {
            live += listed(&stores[0], &format!("al{n}")).await.len();
        }
        live as i64
    };
    eventually("no dead session", async || {
        count("sessions").await == live().await
    })
    .await;
    // Those of the end, and those that were created while the first one lived and died with it.
    assert!((8 * 40..=8 * 50).contains(&live().await));
    for n in 0..8 {
        for i in 0..40 {
            let (user, id) = (
                format!("al{}", i % 5),
                token_id((n * 1000 + i * 10 + 1) as u128),
            );
            assert!(is_live(&stores[0], &user, &id).await);
        }
    }
}

/// More than one batch goes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heap_of_expired_rows_goes() {
    let tables = MySql::start().await;
    let fill = format!(
        "INSERT INTO {} (user_id, token_id, created_at, refreshed_at, expires_at, ends_at, metadata) \
         SELECT CONCAT('al', seq DIV 7), UNHEX(LPAD(HEX(seq), 32, '0')), 1, 1, \
         IF(seq % 10, 2, 4102444800000), NULL, NULL FROM seq_1_to_2000",
        tables.table("sessions")
    );
    tables.server().sql(&fill).await;
    let builder = tables.builder().purge_interval(Duration::from_millis(50));
    let _store = builder.connect().await.unwrap();
    let count = format!("SELECT COUNT(*) FROM {}", tables.table("sessions"));
    eventually("the dead are gone", async || {
        tables.server().number(&count).await == 200
    })
    .await;
}

/// Without an interval nothing is removed.
#[tokio::test]
async fn a_store_may_leave_the_purge_to_others() {
    let tables = MySql::start().await;
    let store = tables
        .builder()
        .purge_interval(None)
        .connect()
        .await
        .unwrap();
    store
        .create("al", &token_id(1), &session(SHORT), None)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let count = format!("SELECT COUNT(*) FROM {}", tables.table("sessions"));
    assert_eq!(tables.server().number(&count).await, 1);
    assert!(!is_live(&store, "al", &token_id(1)).await);
}

/// The last handle takes the background work and all connections with it.
#[tokio::test]
async fn the_purge_ends_with_the_last_handle() {
    let mysql = MariaDb::start().await;
    let builder = MySqlStore::builder(mysql.url()).purge_interval(Duration::from_millis(10));
    let store = builder.connect().await.unwrap();
    store.migrate().await.unwrap();
    let other = store.clone();
    drop(store);
    log_in(&other, "al", &token_id(1)).await;
    let connections = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                       WHERE USER = 'app' AND ID <> CONNECTION_ID()";
    assert!(mysql.number(connections).await > 0);
    drop(other);
    eventually("no connection", async || {
        mysql.number(connections).await == 0
    })
    .await;
}

/// A store that is used by nobody for a while finds what it needs.
#[tokio::test]
async fn a_purge_without_tables_does_no_harm() {
    let tables = MySql::without_tables().await;
    let builder = tables.builder().purge_interval(Duration::from_millis(5));
    let store = builder.connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.migrate().await.unwrap();
    store
        .create("al", &token_id(1), &session(SHORT), None)
        .await
        .unwrap();
    let count = format!("SELECT COUNT(*) FROM {}", tables.table("sessions"));
    eventually("it goes", async || {
        tables.server().number(&count).await == 0
    })
    .await;
    let _ = tables.store().await;
}
