//! A write that is done, but whose answer gets lost together with its connection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_bearer_session::{
    Event, EventKind, RedisStore, SessionStore, TokenId, TokenManager, store::SessionChange,
};

use super::{eventually, patient_store};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::{HOUR, listed, live_session, replacement, session, tick, token_id},
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

/// A renewal that depends on the version of the session finds, when it is repeated, the version that it has made
/// itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_renewal_whose_reply_is_lost_is_done() {
    for max_lifetime in [None, Some(HOUR)] {
        let scene = Scene::new().await;
        let (id, change) = scene.session_to_renew(max_lifetime).await;
        let store = scene.store.clone();
        let version = change.if_version;
        let renewal = async move { store.update("al", &id, &change).await };
        let direct = patient_store(&scene.redis.url()).await;
        let renewed = scene.lose_the_reply_when(renewal, async || {
            Some(live_session(&direct, "al", &id).await.version()) != version
        });
        assert!(renewed.await.unwrap().is_some(), "{max_lifetime:?}");
    }
}

/// A replacement whose reply is lost finds its new token, when it is repeated: the caller gets the token, and the
/// session has been given no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_whose_reply_is_lost_is_done() {
    for ends_others in [false, true] {
        let scene = Scene::new().await;
        let direct = patient_store(&scene.redis.url()).await;
        let [id, other, new] = [7, 8, 9].map(token_id);
        for id in [id, other] {
            let created = scene.store.create("al", &id, &session(HOUR), None).await;
            created.unwrap();
        }
        // The server knows this script, too.
        assert!(scene.store.refresh("al", &id, HOUR).await.unwrap());
        let mut change = replacement(id, new, HOUR);
        change.end_others = ends_others;
        let store = scene.store.clone();
        let replacing = async move { store.update("al", &id, &change).await };
        let replaced = scene.lose_the_reply_when(replacing, async || {
            live_session(&direct, "al", &id).await.rotation.is_some()
        });
        let updated = replaced.await.unwrap().expect("the token is replaced");
        let session = live_session(&direct, "al", &id).await;
        assert_eq!(updated.expires_at, session.expires_at);
        let rotation = session.rotation.unwrap();
        assert_eq!((rotation.current, rotation.replaced.len()), (new, 1));
        // As with a logout of all others, at least one was ended.
        assert_eq!(updated.ended, u64::from(ends_others));
        assert_eq!(
            listed(&direct, "al").await.len(),
            if ends_others { 1 } else { 2 }
        );
    }
}

/// A replacement that is repeated after a logout finds no session, and makes none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_after_a_replacement_whose_reply_is_lost_stands() {
    let scene = Scene::new().await;
    let direct = patient_store(&scene.redis.url()).await;
    let id = token_id(7);
    let created = scene.store.create("al", &id, &session(HOUR), None).await;
    created.unwrap();
    assert!(scene.store.refresh("al", &id, HOUR).await.unwrap());
    let (store, change) = (scene.store.clone(), replacement(id, token_id(9), HOUR));
    let replacing = async move { store.update("al", &id, &change).await };
    let replaced = scene.lose_the_reply_when(replacing, async || {
        let checked = direct.check("al", &id).await.unwrap();
        let is_replaced = checked.is_some_and(|checked| checked.session.rotation.is_some());
        is_replaced && direct.delete("al", &id).await.unwrap()
    });
    assert_eq!(replaced.await.unwrap(), None);
    assert!(listed(&direct, "al").await.is_empty());
}

/// But what somebody else has made of the session is no renewal of this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_renewal_that_came_too_late_is_not_done() {
    for logs_out in [false, true] {
        let scene = Scene::new().await;
        let (id, change) = scene.session_to_renew(None).await;
        let direct = patient_store(&scene.redis.url()).await;
        assert!(match logs_out {
            true => direct.delete("al", &id).await.unwrap(),
            false => direct.refresh("al", &id, 3 * HOUR).await.unwrap(),
        });
        // The first attempt reaches nobody.
        scene.proxy.black_hole_existing();
        let store = scene.store.clone();
        let renewal = tokio::spawn(async move { store.update("al", &id, &change).await });
        eventually("the first attempt", async || {
            let sent = scene.proxy.swallowed();
            let id = id.to_string();
            let mut parts = sent.windows(id.len());
            parts.any(|part| part == id.as_bytes())
        })
        .await;
        scene.proxy.drop_connections().await;
        assert!(renewal.await.unwrap().unwrap().is_none(), "{logs_out}");
    }
}

/// Without a lost reply, a conditional renewal fails if another one has changed the session before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_equal_renewals_one_is_done() {
    let scene = Scene::new().await;
    let (id, change) = scene.session_to_renew(None).await;
    assert!(
        scene
            .store
            .update("al", &id, &change)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        scene
            .store
            .update("al", &id, &change)
            .await
            .unwrap()
            .is_none()
    );
}

/// Without a lost reply, a logout of a session that is not live returns `false`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_a_session_that_is_not_live_is_false() {
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
    store: RedisStore,
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
        let manager = TokenManager::builder(store.clone()).on_event(move |event: &Event<'_>| {
            let text = match event.kind() {
                EventKind::LoggedOut { token_id, .. } => format!("logged out {token_id}"),
                EventKind::LoggedOutAll { sessions, .. } => format!("logged out all: {sessions}"),
                _ => return,
            };
            told.lock().unwrap().push(text);
        });
        Self {
            redis,
            proxy,
            store,
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
        self.lose_the_reply_when(logout, async || listed(&direct, "al").await.is_empty())
            .await
    }

    /// Drops the connection while the answer to a write is on its way, as soon as the write is done.
    async fn lose_the_reply_when<T: Send + 'static>(
        &self,
        write: impl Future<Output = T> + Send + 'static,
        is_done: impl AsyncFnMut() -> bool,
    ) -> T {
        self.proxy.set_delay(Duration::from_millis(500));
        let write = tokio::spawn(write);
        eventually("the write", is_done).await;
        self.proxy.set_delay(Duration::ZERO);
        self.proxy.drop_connections().await;
        write.await.unwrap()
    }

    /// A session of `al`, and its renewal if it has not changed.
    async fn session_to_renew(&self, max_lifetime: Option<Duration>) -> (TokenId, SessionChange) {
        let id = token_id(7);
        let mut new = session(HOUR / 2);
        new.max_lifetime = max_lifetime;
        let created = self.store.create("al", &id, &new, None).await.unwrap();
        // The server knows this script, too.
        assert!(self.store.refresh("al", &id, HOUR / 2).await.unwrap());
        tick().await;
        let version = live_session(&self.store, "al", &id).await.version();
        assert!(version.expires_at >= created.session.expires_at);
        let mut change = SessionChange::refresh(2 * HOUR);
        change.if_version = Some(version);
        (id, change)
    }
}
