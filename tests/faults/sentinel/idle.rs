//! A store that nobody uses while the master is replaced.

use tower_bearer_session::{RedisStore, Token, TokenManager};

use super::{
    LONG_TIMEOUT, POLL, RedisServer, SentinelOptions, SentinelSet, calm_down, is_live, manager,
    replace, replicated, settled, while_master,
};

/// The stores have a user of their own, so that they can be told from sentinels and replicas.
const APP: [&str; 6] = ["--user", "app", "on", ">pw", "~*", "+@all"];

/// A set, and a manager that slept through what happened to it.
struct Scene {
    set: SentinelSet,
    url: String,
    idle: TokenManager,
    token: Token,
}

impl Scene {
    async fn new() -> Self {
        let set = SentinelSet::start_with(SentinelOptions {
            node_args: &APP,
            ..SentinelOptions::default()
        })
        .await;
        let url = set.url().replace("://", "://app:pw@");
        // The machine may be busy.
        let store = RedisStore::builder(&url).deadline(LONG_TIMEOUT);
        let idle = TokenManager::new(store.connect().await.expect("a store"));
        let token = idle.set_token("al", None).await.unwrap();
        replicated(set.master().await, 2).await;
        Self {
            set,
            url,
            idle,
            token,
        }
    }

    /// The first master.
    fn old(&self) -> &RedisServer {
        &self.set.nodes()[0]
    }

    /// Waits until another one is known to everybody; then no token is accepted that was revoked there, and every
    /// write gets there, even when the old one has come `back`.
    async fn sleeps_no_more(&self, back: impl AsyncFnOnce(&RedisServer)) {
        self.set.new_master(self.old()).await;
        tokio::time::sleep(POLL).await;
        let fresh = manager(&self.url).await;
        let token = self.token.expose_secret();
        assert!(fresh.delete_token(token).await.unwrap());
        back(self.old()).await;
        assert!(!is_live(&self.idle, token).await, "a revoked token");

        let login = self.idle.set_token("bo", None).await.unwrap();
        assert!(is_live(&fresh, login.expose_secret()).await, "a lost login");
        let new = self.set.new_master(self.old()).await;
        let sessions = new.cmd(&["HLEN", "tbs:tokens:{bo}"]).await;
        assert_eq!(sessions, redis::Value::Int(1));
        assert!(self.idle.delete_token(login.expose_secret()).await.unwrap());
        assert!(
            !is_live(&fresh, login.expose_secret()).await,
            "a lost logout"
        );
    }

    /// The same after the failover is over for all sentinels.
    async fn sleeps_on(&self, back: impl AsyncFnOnce(&RedisServer)) {
        settled(&self.set, self.old()).await;
        self.sleeps_no_more(back).await;
    }

    /// Checks the revoked token again and again, until the old master is one no more.
    async fn hammer(&self) {
        let mut checks = 0;
        while_master(self.old(), async || {
            let revoked = is_live(&self.idle, self.token.expose_secret()).await;
            assert!(!revoked, "a revoked token");
            checks += 1;
        })
        .await;
        println!("{checks} checks while the old master called itself so");
    }
}

/// The master hangs, is replaced, and goes on.
#[tokio::test]
async fn a_freeze_is_slept_through() {
    let scene = Scene::new().await;
    scene.old().freeze();
    scene.sleeps_on(async |old| old.thaw()).await;
    scene.hammer().await;
}

/// The same, and it goes on before the store had a reason to look again.
#[tokio::test]
async fn a_freeze_and_a_thaw_are_slept_through() {
    let scene = Scene::new().await;
    scene.old().freeze();
    settled(&scene.set, scene.old()).await;
    scene.old().thaw();
    scene.sleeps_on(async |_| {}).await;
    scene.hammer().await;
}

/// The master dies, and comes back empty.
#[tokio::test]
async fn a_kill_is_slept_through() {
    let scene = Scene::new().await;
    scene.old().kill();
    scene.sleeps_on(async |old| old.restart().await).await;
    scene.hammer().await;
}

/// The master is replaced on purpose.
#[tokio::test]
async fn a_planned_failover_is_slept_through() {
    let scene = Scene::new().await;
    calm_down(&scene.set).await;
    replace(&scene.set, scene.old(), &scene.set.sentinels()[0]).await;
    scene.sleeps_on(async |_| {}).await;
    scene.hammer().await;
}

/// The master is fine, but neither sentinels nor replicas reach it any more; the store does.
#[tokio::test]
async fn a_partition_is_slept_through() {
    let scene = Scene::new().await;
    let old = scene.old();
    old.cmd(&["ACL", "SETUSER", "default", "off"]).await;
    old.cmd(&["CLIENT", "KILL", "USER", "default"]).await;
    scene
        .sleeps_on(async |old| {
            old.cmd(&["ACL", "SETUSER", "default", "on"]).await;
        })
        .await;
    scene.hammer().await;
}

/// The new master is there, but the other replica takes its time to follow it: for so long the sentinel that leads the
/// failover, here the only one, does not call it done.
#[tokio::test]
async fn a_failover_that_takes_long_is_slept_through() {
    let scene = Scene::new().await;
    let [leader, others @ ..] = scene.set.sentinels() else {
        panic!("no sentinel");
    };
    others.iter().for_each(RedisServer::kill);
    let slow = ["SENTINEL", "SET", "mymaster", "failover-timeout", "60000"];
    leader.cmd(&slow).await;
    for node in scene.set.nodes() {
        // It is refused when it connects anew.
        node.cmd(&["CONFIG", "SET", "masterauth", "wrong"]).await;
    }
    replace(&scene.set, scene.old(), leader).await;
    scene.sleeps_no_more(async |_| {}).await;
}
