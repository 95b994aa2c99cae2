//! Crashes of a server in an update that ends the other sessions: it is done as a whole, or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::sleep;
use tower_bearer_session::{RedisStore, SessionStore, TokenId, store::SessionChange};

use super::{eventually, patient_store, process::DURABLE};
use crate::{
    harness::{Flavor, RedisServer},
    stores::{HOUR, live_session, log_in, replacement, token_id},
};

/// The session that stays.
const KEPT: u128 = 1;
const NEW_TOKEN: u128 = 10_000;

/// A server that writes what it acknowledges, on which "al" has so many sessions.
struct Scene {
    dir: TempDir,
    redis: RedisServer,
    store: RedisStore,
    sessions: u128,
}

impl Scene {
    async fn start(flavor: Flavor, sessions: u128) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().to_str().unwrap();
        let args = [&DURABLE[..], &["--dir", path]].concat();
        let redis = RedisServer::start_with(flavor, &args).await;
        let store = RedisStore::builder(redis.url())
            .deadline(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(5));
        let scene = Self {
            store: store.connect().await.unwrap(),
            dir,
            redis,
            sessions,
        };
        scene.begin_anew().await;
        scene
    }

    /// Gives "al" the sessions that there were in the beginning.
    async fn begin_anew(&self) {
        let store = patient_store(&self.redis.url()).await;
        store.delete_all("al", None).await.unwrap();
        for n in 0..self.sessions {
            log_in(&store, "al", &token_id(KEPT + n)).await;
        }
    }

    async fn restart(&self) {
        self.redis.restart().await;
        // It answers before it has read its file.
        eventually("the server has loaded its data", async || {
            RedisStore::connect(self.redis.url()).await.is_ok()
        })
        .await;
    }

    /// Whether the update is done; panics if it is half done.
    async fn is_done(&self) -> bool {
        let store = patient_store(&self.redis.url()).await;
        let (id, _) = update();
        let rotation = live_session(&store, "al", &id).await.rotation;
        let is_done = rotation.is_some();
        if let Some(rotation) = rotation {
            assert_eq!(rotation.current, token_id(NEW_TOKEN));
            assert_eq!(rotation.replaced.len(), 1);
        }
        let left = store.list("al").await.unwrap().len() as u128;
        assert_eq!(left, if is_done { 1 } else { self.sessions }, "{is_done}");
        is_done
    }
}

fn update() -> (TokenId, SessionChange) {
    let id = token_id(KEPT);
    let mut change = replacement(id, token_id(NEW_TOKEN), HOUR);
    change.end_others = true;
    (id, change)
}

/// Wherever a crash cuts the file to which the server appends its writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_an_append_only_file_has_all_of_an_update_or_nothing() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let scene = Scene::start(flavor, 3).await;
        let file = append_only_file(scene.dir.path());
        let before = fs::read(&file).unwrap().len();
        let (id, change) = update();
        scene.store.update("al", &id, &change).await.unwrap();
        scene.redis.kill();
        let all = fs::read(&file).unwrap();
        let written = all.len() - before;
        assert!(written > 100, "{written} bytes");
        let mut done = Vec::new();
        // Each command of the update takes more bytes than that.
        for end in (before..all.len()).step_by(9).chain([all.len()]) {
            fs::write(&file, &all[..end]).unwrap();
            scene.restart().await;
            done.push(scene.is_done().await);
            scene.redis.kill();
        }
        let (last, rest) = done.split_last().unwrap();
        assert!(*last, "what was acknowledged is lost");
        assert!(rest.iter().all(|is_done| !is_done), "{done:?}");
    }
}

/// At whatever moment the server is killed: what was acknowledged is done, and nothing is half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_at_any_moment_has_done_all_or_nothing() {
    const ROUNDS: u32 = 12;
    let scene = Scene::start(Flavor::Redis, 1000).await;
    for round in 0..ROUNDS {
        scene.begin_anew().await;
        let store = scene.store.clone();
        let updating = tokio::spawn(async move {
            let (id, change) = update();
            store.update("al", &id, &change).await
        });
        sleep(Duration::from_micros(200) * round).await;
        scene.redis.kill();
        let updated = updating.await.unwrap();
        scene.restart().await;
        let is_done = scene.is_done().await;
        println!("round {round}: {updated:?}, done: {is_done}");
        if let Ok(updated) = updated {
            assert!(is_done, "what was acknowledged is lost");
            assert_eq!(updated.unwrap().ended, 999);
        }
        eventually("a connection", async || scene.store.is_connected()).await;
    }
}

/// The file that the server appends its writes to.
fn append_only_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("appendonlydir")).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let is_appended = |file: &PathBuf| file.to_str().unwrap().ends_with(".incr.aof");
    files.find(is_appended).expect("a file to append to")
}
