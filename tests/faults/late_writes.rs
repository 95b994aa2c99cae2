//! No write takes effect after its caller was told that it failed.
//!
//! A frozen server has requests of two stores in its sockets. After the thaw it reads 16 KiB of each in turn: what
//! stands behind many reads of the one store comes after what the other store sent later.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};
use tower_bearer_session::{
    Error, ErrorKind, OnFull, RedisStore, SessionStore,
    store::{PutMode, SessionChange},
};

use super::{LONG_TIMEOUT, eventually, patient_store};
use crate::{
    harness::{Cluster, Flavor, RedisServer},
    stores::{DAY, HOUR, is_live, limit, live_session, log_in, replacement, session, token_id},
};

/// More than the server reads at a time.
const READS: u128 = 2000;

/// Makes tests of functions that take the server with the keys of `al`, and the URL of the store.
macro_rules! on_one_server_and_in_a_cluster {
    ($($case:ident),* $(,)?) => {
        mod one_server {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let redis = RedisServer::start(Flavor::Redis).await;
                    super::$case(&redis, &redis.url()).await;
                }
            )*
        }
        mod cluster {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cluster = Cluster::start(Flavor::Redis).await;
                    let primary = cluster.primary_of("tbs:tokens:{al}").await;
                    super::$case(primary, &cluster.url()).await;
                }
            )*
        }
    };
}

on_one_server_and_in_a_cluster!(
    a_login_that_timed_out_evicts_nobody,
    a_login_that_timed_out_begins_no_session,
    a_logout_of_all_that_timed_out_ends_no_newer_session,
    a_logout_that_timed_out_ends_nothing,
    a_refresh_that_timed_out_changes_nothing,
    a_replacement_that_timed_out_changes_nothing,
    an_update_that_timed_out_ends_no_other_session,
    a_cached_user_that_timed_out_replaces_nothing,
    a_write_that_came_too_late_is_sent_again_if_there_is_time,
);

/// With a session limit, the login that was acknowledged stays.
async fn a_login_that_timed_out_evicts_nobody(server: &RedisServer, url: &str) {
    let (late, newer) = (token_id(1), token_id(2));
    let one = limit(1, OnFull::EvictOldest);
    let scene = Scene::new(server, url).await;
    for _ in 0..3 {
        let patient = scene.patient.clone();
        let created = scene.play(
            async |store| store.create("al", &late, &session(HOUR), one).await,
            async move { patient.create("al", &newer, &session(HOUR), one).await },
        );
        created.await.unwrap();
        assert!(is_live(&scene.patient, "al", &newer).await);
        assert!(!is_live(&scene.patient, "al", &late).await);
        assert_eq!(scene.patient.delete_all("al", None).await.unwrap(), 1);
    }
}

/// Without a limit, too.
async fn a_login_that_timed_out_begins_no_session(server: &RedisServer, url: &str) {
    let (late, newer) = (token_id(1), token_id(2));
    let scene = Scene::new(server, url).await;
    let patient = scene.patient.clone();
    let created = scene.play(
        async |store| store.create("al", &late, &session(HOUR), None).await,
        async move { patient.create("al", &newer, &session(HOUR), None).await },
    );
    created.await.unwrap();
    assert!(!is_live(&scene.patient, "al", &late).await);
    assert!(is_live(&scene.patient, "al", &newer).await);
}

/// Whether a session is excepted or not.
async fn a_logout_of_all_that_timed_out_ends_no_newer_session(server: &RedisServer, url: &str) {
    let (kept, newer) = (token_id(1), token_id(2));
    let scene = Scene::new(server, url).await;
    for except in [None, Some(&kept)] {
        log_in(&scene.patient, "al", &kept).await;
        let patient = scene.patient.clone();
        let created = scene.play(
            async |store| store.delete_all("al", except).await,
            async move { patient.create("al", &newer, &session(HOUR), None).await },
        );
        created.await.unwrap();
        assert!(is_live(&scene.patient, "al", &newer).await, "{except:?}");
        assert!(is_live(&scene.patient, "al", &kept).await, "{except:?}");
        scene.patient.delete_all("al", None).await.unwrap();
    }
}

/// The caller, who was told so, may have let the user go on.
async fn a_logout_that_timed_out_ends_nothing(server: &RedisServer, url: &str) {
    let id = token_id(1);
    let scene = Scene::new(server, url).await;
    log_in(&scene.patient, "al", &id).await;
    let patient = scene.patient.clone();
    let check = scene.play(async |store| store.delete("al", &id).await, async move {
        patient.check("al", &id).await
    });
    check.await.unwrap();
    assert!(is_live(&scene.patient, "al", &id).await);
}

/// A later refresh, which shortens the session, stands.
async fn a_refresh_that_timed_out_changes_nothing(server: &RedisServer, url: &str) {
    let id = token_id(1);
    let scene = Scene::new(server, url).await;
    log_in(&scene.patient, "al", &id).await;
    let patient = scene.patient.clone();
    let refreshed = scene.play(
        async |store| store.refresh("al", &id, 100 * HOUR).await,
        async move { patient.refresh("al", &id, HOUR / 2).await },
    );
    assert!(refreshed.await.unwrap());
    let session = live_session(&scene.patient, "al", &id).await;
    assert_eq!(session.expires_at, session.refreshed_at + HOUR / 2);
}

/// The client, who was told so, goes on with the token that it has: neither the session nor a newer replacement of that
/// token is changed, although the late one has no condition then.
async fn a_replacement_that_timed_out_changes_nothing(server: &RedisServer, url: &str) {
    let [late, newer] = [2, 3].map(token_id);
    let scene = Scene::new(server, url).await;
    for (round, is_replaced) in (10..).zip([false, true]) {
        let id = token_id(round);
        log_in(&scene.patient, "al", &id).await;
        let mut change = replacement(id, late, HOUR);
        change.if_token = change.if_token.filter(|_| !is_replaced);
        let patient = scene.patient.clone();
        let replaced = scene.play(
            async |store| store.update("al", &id, &change).await,
            async move {
                let newer = replacement(id, newer, HOUR);
                match is_replaced {
                    true => patient.update("al", &id, &newer).await,
                    false => Ok(None),
                }
            },
        );
        assert_eq!(replaced.await.unwrap().is_some(), is_replaced);
        let session = live_session(&scene.patient, "al", &id).await;
        let expected = if is_replaced { newer } else { id };
        assert_eq!(session.current_token(&id), &expected);
        let replaced = session.rotation.map(|rotation| rotation.replaced.len());
        assert_eq!(replaced.unwrap_or(0), usize::from(is_replaced));
    }
}

/// Neither one from before nor a newer login, and the update changes nothing of its own session: with a new token and
/// without.
async fn an_update_that_timed_out_ends_no_other_session(server: &RedisServer, url: &str) {
    let [id, other, newer, new] = [1, 2, 3, 4].map(token_id);
    let scene = Scene::new(server, url).await;
    for mut change in [SessionChange::refresh(DAY), replacement(id, new, HOUR)] {
        change.end_others = true;
        let before = log_in(&scene.patient, "al", &id).await;
        log_in(&scene.patient, "al", &other).await;
        let patient = scene.patient.clone();
        let created = scene.play(
            async |store| store.update("al", &id, &change).await,
            async move { patient.create("al", &newer, &session(HOUR), None).await },
        );
        created.await.unwrap();
        for id in [&other, &newer] {
            assert!(is_live(&scene.patient, "al", id).await, "{change:?}");
        }
        let after = live_session(&scene.patient, "al", &id).await;
        assert_eq!(after, before, "{change:?}");
        scene.patient.delete_all("al", None).await.unwrap();
    }
}

/// In all modes.
async fn a_cached_user_that_timed_out_replaces_nothing(server: &RedisServer, url: &str) {
    let scene = Scene::new(server, url).await;
    for mode in [
        PutMode::IfUnchanged(None),
        PutMode::IfUnchanged(Some(b"old")),
        PutMode::Replace,
    ] {
        if mode != PutMode::IfUnchanged(None) {
            let put = scene
                .patient
                .put_user("al", b"old", HOUR, PutMode::Replace)
                .await;
            assert!(put.unwrap());
        }
        let before = scene.patient.get_user("al").await.unwrap();
        let patient = scene.patient.clone();
        let found = scene.play(
            async |store| store.put_user("al", b"late", HOUR, mode).await,
            async move { patient.get_user("al").await },
        );
        found.await.unwrap();
        let after = scene.patient.get_user("al").await.unwrap();
        assert_eq!(after, before, "{mode:?}");
    }
}

/// A call with a long deadline is done, however late its first copy came.
async fn a_write_that_came_too_late_is_sent_again_if_there_is_time(
    server: &RedisServer,
    url: &str,
) {
    let id = token_id(1);
    let scene = Scene::new(server, url).await;
    let calls = async || server.command_calls().await["evalsha"];
    let before = calls().await;
    server.freeze();
    let patient = scene.patient.clone();
    let login = tokio::spawn(async move { log_in(&patient, "al", &id).await });
    // Longer than any copy may be on its way.
    sleep(Duration::from_millis(1500)).await;
    server.thaw();
    let created = login.await.unwrap();
    assert_eq!(live_session(&scene.patient, "al", &id).await, created);
    assert!(calls().await >= before + 2);
}

/// Two stores of one server.
struct Scene<'a> {
    server: &'a RedisServer,
    hasty: RedisStore,
    patient: RedisStore,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a RedisServer, url: &str) -> Self {
        let hasty = RedisStore::builder(url).deadline(Duration::from_millis(300));
        // A connection that answers no more is in use until there is another one.
        let hasty = hasty.connect_timeout(LONG_TIMEOUT).connect().await.unwrap();
        let patient = patient_store(url).await;
        let (id, other) = (token_id(8), token_id(9));
        // The server knows all scripts from then on.
        log_in(&patient, "al", &id).await;
        log_in(&patient, "al", &other).await;
        assert!(patient.refresh("al", &id, HOUR).await.unwrap());
        assert!(patient.delete("al", &other).await.unwrap());
        assert_eq!(patient.delete_all("al", None).await.unwrap(), 1);
        for mode in [PutMode::IfUnchanged(Some(b"")), PutMode::Replace] {
            let short = Duration::from_millis(1);
            patient.put_user("al", b"", short, mode).await.unwrap();
        }
        sleep(Duration::from_millis(5)).await;
        Self {
            server,
            hasty,
            patient,
        }
    }

    /// Lets `late` time out at the frozen server, begins `newer`, and returns its outcome, when the server has done all
    /// that it was sent.
    async fn play<L, N: Send + 'static>(
        &self,
        late: impl AsyncFnOnce(&RedisStore) -> Result<L, Error>,
        newer: impl Future<Output = Result<N, Error>> + Send + 'static,
    ) -> Result<N, Error> {
        self.server.freeze();
        let mut reads = JoinSet::new();
        for number in 0..READS {
            let store = self.hasty.clone();
            reads.spawn(async move { store.check("al", &token_id(1000 + number)).await });
        }
        // They are written before the late one.
        sleep(Duration::from_millis(50)).await;
        let Err(error) = late(&self.hasty).await else {
            panic!("a frozen server has answered");
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        let newer = tokio::spawn(newer);
        sleep(Duration::from_millis(50)).await;
        self.server.thaw();
        let outcome = newer.await.unwrap();
        reads.join_all().await;
        eventually("recovery", async || {
            self.hasty.check("al", &token_id(0)).await.is_ok()
        })
        .await;
        // The old connection, too, is read to its end.
        sleep(Duration::from_millis(300)).await;
        outcome
    }
}
