use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tower_bearer_session::{MySqlStore, SessionStore, store::PutMode, test_util::Backend as _};

use crate::{
    harness::MariaDb,
    stores::{Backend, HOUR, MySql, is_live, live, live_session, log_in, session, token_id},
};

/// Whatever time zone the server has, times are right, and have milliseconds.
#[tokio::test]
async fn the_time_zone_of_the_server_does_not_matter() {
    let mysql = MariaDb::start_with(&["--default-time-zone=+05:45"]).await;
    let store = MySqlStore::connect(mysql.url()).await.unwrap();
    store.migrate().await.unwrap();
    let minute = Duration::from_secs(60);
    let near = |time: SystemTime, other: SystemTime| {
        let apart = time
            .duration_since(other)
            .unwrap_or_else(|error| error.duration());
        apart < minute
    };
    let now = SystemTime::now();
    let begun = log_in(&store, "al", &token_id(1)).await;
    assert!(near(begun.created_at, now), "{begun:?}");
    assert_eq!(begun.expires_at, begun.created_at + HOUR);
    let checked = live(&store, "al", &token_id(1)).await;
    assert!(near(checked.now, now), "{checked:?}");
    assert!(checked.now >= begun.created_at);
    assert!(store.refresh("al", &token_id(1), 2 * HOUR).await.unwrap());
    let refreshed = live_session(&store, "al", &token_id(1)).await;
    assert!(near(refreshed.refreshed_at, now), "{refreshed:?}");
    assert_eq!(refreshed.expires_at, refreshed.refreshed_at + 2 * HOUR);
    assert!(
        store
            .put_user("al", b"x", minute, PutMode::Replace)
            .await
            .unwrap()
    );
    assert!(live(&store, "al", &token_id(1)).await.user.is_some());
    let mut fractions = Vec::new();
    for n in 2..12 {
        let begun = log_in(&store, "al", &token_id(n)).await.created_at;
        let since = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        fractions.push(since.subsec_millis());
    }
    assert!(fractions.iter().any(|millis| *millis > 0), "{fractions:?}");
}

/// A refresh or a logout that had to wait judges by the time when its turn comes: what has expired meanwhile, and was
/// seen to have, does not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_lock_brings_nothing_back() {
    let tables = MySql::start().await;
    let store = tables.store().await;
    let lock = format!(
        "SELECT token_id FROM {} FOR UPDATE",
        tables.table("sessions")
    );
    for logout in [false, true] {
        let new = session(Duration::from_millis(800));
        store.create("al", &token_id(1), &new, None).await.unwrap();
        let mut other = tables.server().connect().await.unwrap();
        sqlx::raw_sql("START TRANSACTION")
            .execute(&mut other)
            .await
            .unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(&*lock))
            .execute(&mut other)
            .await
            .unwrap();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move {
                match logout {
                    false => store.refresh("al", &token_id(1), HOUR).await,
                    true => store.delete("al", &token_id(1)).await,
                }
            }
        });
        sleep(Duration::from_millis(1200)).await;
        assert!(!is_live(&store, "al", &token_id(1)).await);
        assert!(!waiting.is_finished());
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        assert!(!waiting.await.unwrap().unwrap());
        assert!(!is_live(&store, "al", &token_id(1)).await);
    }
}
