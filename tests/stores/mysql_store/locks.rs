use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use tokio::task::JoinSet;
use tower_bearer_session::{ErrorKind, MySqlStore, OnFull, SessionStore, test_util::Backend as _};

use super::eventually;
use crate::{
    harness::MariaDb,
    stores::{
        Backend, DAY, HOUR, MySql, at_once, is_live, limit, listed, log_in, session, token_id,
    },
};

/// Logins, refreshes and logouts of the same few users all at once: no error, no deadlock, never too many sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_keeps_the_limit_without_deadlocks() {
    let mysql = MariaDb::start().await;
    let mut stores = Vec::new();
    for _ in 0..4 {
        let builder = MySqlStore::builder(mysql.url()).deadline(Duration::from_secs(30));
        let builder = builder.connect_timeout(Duration::from_secs(30));
        stores.push(
            builder
                .purge_interval(Duration::from_millis(20))
                .connect()
                .await
                .unwrap(),
        );
    }
    stores[0].migrate().await.unwrap();
    let before = mysql.status().await;
    let done = at_once(32, |n| {
        let store = stores[n % 4].clone();
        async move {
            let mut random = n as u64 + 1;
            for i in 0..25 {
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let user = format!("al{}", random % 3);
                let id = token_id((n * 100 + i) as u128);
                let on_full = [OnFull::EvictOldest, OnFull::EvictLeastRecentlyRefreshed];
                let on_full = on_full[(random >> 8) as usize % 2];
                let ttl = [HOUR, Duration::from_millis(30)][(random >> 16) as usize % 2];
                store
                    .create(&user, &id, &session(ttl), limit(3, on_full))
                    .await
                    .unwrap();
                match (random >> 24) % 6 {
                    0 => _ = store.refresh(&user, &id, DAY).await.unwrap(),
                    1 => _ = store.delete(&user, &id).await.unwrap(),
                    2 => _ = store.delete_all(&user, Some(&id)).await.unwrap(),
                    3 => {
                        let (new, id) = (session(HOUR), token_id(random.into()));
                        let one = limit(1, OnFull::Reject);
                        if let Err(error) = store.create(&user, &id, &new, one).await {
                            assert_eq!(error.kind(), ErrorKind::SessionLimit, "{error:?}");
                        }
                    }
                    _ => {}
                }
                assert!(listed(&store, &user).await.len() <= 3);
            }
        }
    });
    done.await;
    let after = mysql.status().await;
    assert_eq!(after["Innodb_deadlocks"], before["Innodb_deadlocks"]);
}

/// A deadlock is a known end of a transaction: it is done again, but not for ever.
#[tokio::test]
async fn what_a_deadlock_undoes_is_done_again() {
    let tables = MySql::start().await;
    let (server, left) = (tables.server(), tables.table("left"));
    // Its engine knows no transactions, so that it goes on counting when they are undone.
    server
        .sql(&format!("CREATE TABLE {left} (n INT) ENGINE = MyISAM"))
        .await;
    server.sql(&format!("INSERT INTO {left} VALUES (3)")).await;
    let trigger = format!(
        "CREATE TRIGGER {} BEFORE INSERT ON {} FOR EACH ROW IF (SELECT n FROM {left}) > 0 THEN \
         UPDATE {left} SET n = n - 1; SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213; END IF",
        tables.table("trigger"),
        tables.table("sessions")
    );
    server.sql(&trigger).await;
    let store = tables.store().await;
    let (new, one) = (session(HOUR), limit(1, OnFull::EvictOldest));
    let created = store.create("al", &token_id(1), &new, one).await;
    assert!(created.unwrap().evicted.is_empty());
    assert_eq!(listed(&store, "al").await, [token_id(1)]);

    server.sql(&format!("UPDATE {left} SET n = 1000")).await;
    let error = store.create("al", &token_id(2), &new, one).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(listed(&store, "al").await, [token_id(1)]);
}

/// A limit that comes when a user has thousands of sessions ends them in a few statements, not one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_limit_ends_many_sessions_at_once() {
    // A server of its own, whose counters are of this test alone.
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).deadline(Duration::from_secs(30));
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    let many = "INSERT INTO tbs_sessions \
                (user_id, token_id, created_at, refreshed_at, expires_at, ends_at, metadata) \
                SELECT 'al', UNHEX(MD5(seq)), 0, 0, 4102444800000, NULL, NULL FROM seq_1_to_5000";
    mysql.sql(many).await;
    log_in(&store, "al", &token_id(1)).await;
    let five = limit(5, OnFull::EvictOldest);
    let before = mysql.status().await;
    let created = store.create("al", &token_id(2), &session(HOUR), five).await;
    // The first ones, for all of which there is one statement.
    assert_eq!(created.unwrap().evicted.len(), 512);
    let after = mysql.status().await;
    let during = |name: &str| after[name] - before[name];
    assert!(during("Questions") < 20, "{}", during("Questions"));
    assert!(during("Handler_update") + during("Handler_delete") < 20);
    assert_eq!(listed(&store, "al").await.len(), 5);
    assert!(is_live(&store, "al", &token_id(1)).await);
}

/// Somebody else has locked what a login needs: it ends in time, and nobody but those who share the lock notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_is_a_timeout() {
    let tables = MySql::start().await;
    let store = tables.builder().deadline(Duration::from_millis(300));
    let store = store.connect().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    let mut other = locked_out(&tables).await;
    let new = session(HOUR);
    // More than there are connections.
    let mut logins = JoinSet::new();
    for _ in 0..40 {
        let (store, new) = (store.clone(), new.clone());
        logins.spawn(async move { store.create("al", &token_id(2), &new, None).await });
    }
    while let Some(login) = logins.join_next().await {
        let error = login.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        // Whoever only looks does not wait for those who wait.
        assert!(is_live(&store, "al", &token_id(1)).await);
    }
    log_in(&store, "bo", &token_id(3)).await;
    run(&mut other, "ROLLBACK").await;
    eventually("a login", async || {
        store.create("al", &token_id(2), &new, None).await.is_ok()
    })
    .await;
}

/// Those who wait for one user's lock take neither the connections nor the turns of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_wait_for_a_lock_leave_room_for_those_of_others() {
    let tables = MySql::start().await;
    let store = tables.builder().deadline(Duration::from_secs(15));
    let store = store.connect().await.unwrap();
    log_in(&store, "bo", &token_id(3)).await;
    let mut other = locked_out(&tables).await;
    let mut waiting = JoinSet::new();
    for n in 0..40 {
        let store = store.clone();
        waiting.spawn(async move {
            match n % 2 {
                0 => _ = store.create("al", &token_id(n), &session(HOUR), None).await,
                _ => _ = store.delete_all("al", None).await,
            }
        });
    }
    let waits = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%{}%FOR UPDATE'",
        tables.table("slots")
    );
    eventually("somebody waits", async || {
        tables.server().number(&waits).await > 0
    })
    .await;
    for n in 0..20 {
        store
            .create("bo", &token_id(n), &session(HOUR), None)
            .await
            .unwrap();
    }
    store.delete_all("bo", None).await.unwrap();
    assert!(waiting.try_join_next().is_none());
    run(&mut other, "ROLLBACK").await;
    waiting.join_all().await;
}

/// Neither do those of the many users who share the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_who_share_a_lock_leave_room_for_others() {
    let tables = MySql::start().await;
    let store = tables.builder().deadline(Duration::from_secs(15));
    let store = store.connect().await.unwrap();
    let mut other = locked_out(&tables).await;
    let found = tables
        .server()
        .sql(
            "SELECT CONCAT('user', seq) FROM seq_1_to_40000 \
             WHERE CRC32(CONCAT('user', seq)) % 1024 = CRC32('al') % 1024",
        )
        .await;
    let users: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert!(users.len() > 20, "{users:?}");
    let mut waiting = JoinSet::new();
    for user in users {
        let store = store.clone();
        waiting.spawn(async move {
            log_in(&store, &user, &token_id(1)).await;
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for n in 0..20 {
        log_in(&store, "bo", &token_id(n)).await;
    }
    assert!(waiting.try_join_next().is_none());
    run(&mut other, "ROLLBACK").await;
    waiting.join_all().await;
}

/// Waiting for a connection is a part of the time that an operation has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_connection_ends_in_time() {
    let tables = MySql::start().await;
    let store = tables.builder().max_connections(1);
    let store = store
        .deadline(Duration::from_millis(500))
        .connect()
        .await
        .unwrap();
    log_in(&store, "al", &token_id(1)).await;
    let mut other = tables.server().connect().await.unwrap();
    run(
        &mut other,
        &format!("LOCK TABLES {} WRITE", tables.table("users")),
    )
    .await;
    let checks = at_once(6, |_| {
        let store = store.clone();
        async move { store.check("al", &token_id(1)).await }
    });
    for check in checks.await {
        assert_eq!(check.unwrap_err().kind(), ErrorKind::Timeout);
    }
    run(&mut other, "UNLOCK TABLES").await;
    eventually("a check", async || {
        store.check("al", &token_id(1)).await.is_ok()
    })
    .await;
}

/// When the connection drops while the server commits, nobody knows whether the login is done: it is not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_may_be_committed_is_not_repeated() {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).deadline(Duration::from_secs(60));
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    let mut backup = mysql.connect().await.unwrap();
    for stage in ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"] {
        run(&mut backup, &format!("BACKUP STAGE {stage}")).await;
    }
    let login = tokio::spawn({
        let store = store.clone();
        async move { store.create("al", &token_id(1), &session(HOUR), None).await }
    });
    let committing = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'COMMIT%'";
    eventually("a commit", async || !mysql.sql(committing).await.is_empty()).await;
    let id: i64 = mysql.sql(committing).await[0].get(0);
    run(&mut backup, &format!("KILL {id}")).await;
    let error = login.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    run(&mut backup, "BACKUP STAGE END").await;
    // All else is done again.
    store.delete_all("al", None).await.unwrap();
    assert!(listed(&store, "al").await.is_empty());
}

/// A connection that has locked the slot of "al".
async fn locked_out(tables: &MySql) -> MySqlConnection {
    let mut other = tables.server().connect().await.unwrap();
    run(&mut other, "START TRANSACTION").await;
    let lock = format!(
        "SELECT slot FROM {} WHERE slot = CRC32('al') % 1024 FOR UPDATE",
        tables.table("slots")
    );
    run(&mut other, &lock).await;
    other
}

async fn run(connection: &mut MySqlConnection, statement: &str) {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement));
    statement.execute(connection).await.unwrap();
}
