//! Crashes in the middle of an update that ends the other sessions: it is done as a whole, or not at all.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};
use tokio::{task::JoinHandle, time::sleep};
use tower_bearer_session::{
    Error, MySqlStore, SessionStore, TokenId,
    store::{SessionChange, Updated},
};

use super::{eventually, fill, uncommitted};
use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, live_session, replacement, token_id},
};

/// The session that stays.
const KEPT: u128 = 1;
const NEW_TOKEN: u128 = 10_000;
/// Numbers of sessions, and of rows that the update changes: it updates the session and deletes the others; or it
/// deletes 512 of them, writes the cutoff and keeps the session.
const SIZES: [(usize, i64); 2] = [(3, 1 + 2), (700, 1 + 512 + 1 + 1)];

fn new_token_for_the_only_session() -> (TokenId, SessionChange) {
    let id = token_id(KEPT);
    let mut change = replacement(id, token_id(NEW_TOKEN), HOUR);
    change.end_others = true;
    (id, change)
}

/// A server, on which "al" has so many sessions, a proxy in front of it, and a store through the proxy.
struct Scene {
    mysql: MariaDb,
    proxy: Proxy,
    store: MySqlStore,
    sessions: usize,
}

impl Scene {
    async fn start(sessions: usize) -> Self {
        let mysql = MariaDb::start().await;
        let proxy = Proxy::start(mysql.port()).await;
        let store = patient(proxy.port()).await;
        store.migrate().await.unwrap();
        let scene = Self {
            mysql,
            proxy,
            store,
            sessions,
        };
        scene.begin_anew().await;
        scene
    }

    /// Gives "al" the sessions that there were in the beginning.
    async fn begin_anew(&self) {
        let clear = "DELETE FROM tbs_sessions; DELETE FROM tbs_cutoffs";
        self.mysql.sql(clear).await;
        let fill = fill("tbs_sessions", "al", self.sessions);
        self.mysql.sql(&fill).await;
    }

    fn update(&self) -> JoinHandle<Result<Option<Updated>, Error>> {
        let store = self.store.clone();
        tokio::spawn(async move {
            let (id, change) = new_token_for_the_only_session();
            store.update("al", &id, &change).await
        })
    }

    /// The update, when it has changed so many rows and not been committed.
    async fn update_until(&self, rows: i64) -> JoinHandle<Result<Option<Updated>, Error>> {
        self.proxy.set_delay(Duration::from_millis(400));
        let update = self.update();
        eventually("the changes", async || {
            uncommitted(&self.mysql, rows).await > 0
        })
        .await;
        self.proxy.set_delay(Duration::ZERO);
        update
    }

    async fn restart(&self) {
        self.mysql.restart().await;
        eventually("the store is connected", async || {
            self.store.ping().await.is_ok()
        })
        .await;
    }

    /// Whether the update is done; panics if it is half done.
    async fn is_done(&self) -> bool {
        let direct = patient(self.mysql.port()).await;
        let (id, _) = new_token_for_the_only_session();
        let rotation = live_session(&direct, "al", &id).await.rotation;
        let is_done = rotation.is_some();
        if let Some(rotation) = rotation {
            assert_eq!(rotation.current, token_id(NEW_TOKEN));
            assert_eq!(rotation.replaced.len(), 1);
        }
        let left = direct.list("al").await.unwrap().len();
        assert_eq!(left, if is_done { 1 } else { self.sessions }, "{is_done}");
        is_done
    }
}

/// A store that gives up late and leaves the rows to the test.
async fn patient(port: u16) -> MySqlStore {
    let url = format!("mysql://app:hunter2@127.0.0.1:{port}/sessions");
    let builder = MySqlStore::builder(url).deadline(Duration::from_secs(30));
    let builder = builder.connect_timeout(Duration::from_secs(30));
    builder.purge_interval(None).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_before_the_commit_has_done_nothing() {
    for (sessions, rows) in SIZES {
        let scene = Scene::start(sessions).await;
        let update = scene.update_until(rows).await;
        scene.mysql.kill();
        update.await.unwrap().unwrap_err();
        scene.restart().await;
        assert!(!scene.is_done().await);
        // Nothing is left of it that would be in the way of the next one.
        let updated = scene.update().await.unwrap().unwrap().unwrap();
        assert_eq!(updated.ended, sessions as u64 - 1);
        assert!(scene.is_done().await);
    }
}

/// Although the reply is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_after_the_commit_has_done_all() {
    for (sessions, _) in SIZES {
        let scene = Scene::start(sessions).await;
        scene.proxy.set_delay(Duration::from_millis(400));
        let update = scene.update();
        let direct = patient(scene.mysql.port()).await;
        let (id, _) = new_token_for_the_only_session();
        eventually("the commit", async || {
            live_session(&direct, "al", &id).await.rotation.is_some()
        })
        .await;
        scene.mysql.kill();
        scene.proxy.set_delay(Duration::ZERO);
        scene.proxy.drop_connections().await;
        let told = update.await.unwrap();
        println!("{told:?}");
        scene.restart().await;
        assert!(scene.is_done().await);
    }
}

/// At whatever moment: what was acknowledged is done, and nothing is half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_at_any_moment_has_done_all_or_nothing() {
    const ROUNDS: u32 = 8;
    let scene = Scene::start(700).await;
    for round in 0..ROUNDS {
        scene.begin_anew().await;
        let update = scene.update();
        sleep(Duration::from_millis(2) * round).await;
        scene.mysql.kill();
        let updated = update.await.unwrap();
        scene.restart().await;
        let is_done = scene.is_done().await;
        println!("round {round}: {updated:?}, done: {is_done}");
        if let Ok(updated) = updated {
            assert!(is_done, "what was acknowledged is lost");
            assert_eq!(updated.unwrap().ended, 699);
        }
    }
}

/// The loss of the connection between the update and the commit, and in the commit: the store does it again, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_whose_connection_is_lost_is_done_once() {
    for (sessions, rows) in SIZES {
        let scene = Scene::start(sessions).await;
        let update = scene.update_until(rows).await;
        let thread = format!(
            "SELECT CAST(trx_mysql_thread_id AS SIGNED) FROM information_schema.INNODB_TRX \
             WHERE trx_rows_modified >= {rows}"
        );
        let thread = scene.mysql.number(&thread).await;
        scene.mysql.sql(&format!("KILL {thread}")).await;
        let updated = update.await.unwrap().unwrap().unwrap();
        assert_eq!(updated.ended, sessions as u64 - 1);
        assert!(scene.is_done().await);

        scene.begin_anew().await;
        let mut backup = scene.mysql.connect().await.unwrap();
        for stage in ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"] {
            let stage = AssertSqlSafe(format!("BACKUP STAGE {stage}"));
            sqlx::raw_sql(stage).execute(&mut backup).await.unwrap();
        }
        let update = scene.update();
        let committing = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'COMMIT%'";
        eventually("a commit", async || {
            !scene.mysql.sql(committing).await.is_empty()
        })
        .await;
        let thread: i64 = scene.mysql.sql(committing).await[0].get(0);
        scene.mysql.sql(&format!("KILL {thread}")).await;
        let end = sqlx::raw_sql("BACKUP STAGE END");
        end.execute(&mut backup).await.unwrap();
        let updated = update.await.unwrap().unwrap().unwrap();
        assert_eq!(updated.ended, sessions as u64 - 1);
        assert!(scene.is_done().await);
    }
}
