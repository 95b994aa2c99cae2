//! A logout that is done, but whose answer gets lost together with its connection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_bearer_session::{Event, SessionStore, TokenManager};

use super::{eventually, patient_store};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::listed,
};

/// The repetition finds nothing, and answers `true` all the same: the manager tells of the logout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_whose_reply_is_lost_is_told() {
    let scene = Scene::new().await;
    let token = scene.manager.set_token("al", None).await.unwrap();
    let manager = scene.manager.clone();
    let id = *token.id();
    let ended = scene.lose_the_reply(async move { manager.delete_user_token("al", &id).await });
    assert!(ended.await.unwrap());
    assert_eq!(*scene.events.lock().unwrap(), [format!("logged out {id}")]);
}

/// The same with all sessions: at least one has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_all_whose_reply_is_lost_is_told() {
    let scene = Scene::new().await;
    scene.manager.set_token("al", None).await.unwrap();
    let manager = scene.manager.clone();
    let ended = scene.lose_the_reply(async move { manager.delete_user_tokens("al").await });
    assert_eq!(ended.await.unwrap(), 1);
    assert_eq!(*scene.events.lock().unwrap(), ["logged out all: 1"]);
}

/// A login whose reply is lost is not done again: a logout in between stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_a_login_whose_reply_is_lost_stands() {
    let scene = Scene::new().await;
    let direct = patient_store(&scene.redis.url()).await;
    scene.proxy.set_delay(Duration::from_millis(500));
    let manager = scene.manager.clone();
    let login = tokio::spawn(async move { manager.set_token("al", None).await });
    eventually("the login", async || {
        !listed(&direct, "al").await.is_empty()
    })
    .await;
    assert_eq!(direct.delete_all("al", None).await.unwrap(), 1);
    scene.proxy.set_delay(Duration::ZERO);
    scene.proxy.drop_connections().await;
    login.await.unwrap().unwrap_err();
    assert!(listed(&direct, "al").await.is_empty());
}

/// Without a lost reply the answer stays what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_nobody_is_none() {
    let scene = Scene::new().await;
    let token = scene.manager.set_token("al", None).await.unwrap();
    let logout = async || scene.manager.delete_user_token("al", token.id()).await;
    assert!(logout().await.unwrap());
    assert!(!logout().await.unwrap());
    assert_eq!(scene.manager.delete_user_tokens("al").await.unwrap(), 0);
}

struct Scene {
    redis: RedisServer,
    proxy: Proxy,
    manager: TokenManager,
    events: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    async fn new() -> Self {
        let redis = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(redis.port()).await;
        let store = patient_store(&format!("redis://127.0.0.1:{}", proxy.port())).await;
        // The server knows the scripts from then on.
        let id = crate::stores::token_id(1);
        crate::stores::log_in(&store, "bo", &id).await;
        assert!(store.delete("bo", &id).await.unwrap());
        store.delete_all("bo", None).await.unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let manager = TokenManager::builder(store).on_event(move |event: &Event<'_>| {
            let text = match event {
                Event::LoggedOut { token_id, .. } => format!("logged out {token_id}"),
                Event::LoggedOutAll { sessions, .. } => format!("logged out all: {sessions}"),
                _ => return,
            };
            told.lock().unwrap().push(text);
        });
        Self {
            redis,
            proxy,
            manager: manager.build().unwrap(),
            events,
        }
    }

    /// Drops the connection while the answer to the logout of `al` is on its way.
    async fn lose_the_reply<T: Send + 'static>(
        &self,
        logout: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let direct = patient_store(&self.redis.url()).await;
        self.proxy.set_delay(Duration::from_millis(500));
        let logout = tokio::spawn(logout);
        eventually("the logout", async || {
            listed(&direct, "al").await.is_empty()
        })
        .await;
        self.proxy.set_delay(Duration::ZERO);
        self.proxy.drop_connections().await;
        logout.await.unwrap()
    }
}
