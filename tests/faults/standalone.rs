//! One address, behind which the primary changes: it is demoted in place, or the address leads to another server.
//!
//! A managed Redis moves a DNS name, a load balancer or a virtual address. The server that was the primary may go on
//! serving whoever is still connected to it.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tower_bearer_session::{Error, RedisStore, SessionStore, Token, TokenManager};

use super::{LONG_TIMEOUT, eventually, is_unavailable, within};
use crate::{
    harness::{
        Flavor, Proxy, RedisServer,
        fake::{FakeServer, NIL},
    },
    stores::token_id,
};

/// The stores have a user of their own, so that the servers can tell them from the harness.
const APP: [&str; 6] = ["--user", "app", "on", ">pw", "~*", "+@all"];

/// Much longer than a store may take to follow its primary.
const LIMIT: Duration = Duration::from_secs(15);

/// Two servers with the same data, of which the first one is the primary; a forwarder in front of it; and a store that
/// reaches it through the forwarder.
struct Scene {
    old: RedisServer,
    new: RedisServer,
    forwarder: Proxy,
    store: RedisStore,
    manager: TokenManager,
    /// Lives until [`revoke`](Self::revoke).
    revoked: Token,
    live: Token,
}

impl Scene {
    async fn new() -> Self {
        let start = || RedisServer::start_with(Flavor::Redis, &APP);
        let (old, new) = tokio::join!(start(), start());
        let forwarder = Proxy::start(old.port()).await;
        let url = format!("redis://app:pw@127.0.0.1:{}", forwarder.port());
        let builder = RedisStore::builder(url).deadline(Duration::from_secs(3));
        let store = builder
            .connect_timeout(LONG_TIMEOUT)
            .connect()
            .await
            .unwrap();
        let manager = TokenManager::new(store.clone());
        let revoked = manager.set_token("al", None).await.unwrap();
        let live = manager.set_token("bo", None).await.unwrap();
        new.cmd(&["REPLICAOF", "127.0.0.1", &old.port().to_string()])
            .await;
        eventually("a replica", async || {
            let sessions = new.cmd(&["EXISTS", "tbs:tokens:{al}", "tbs:tokens:{bo}"]);
            sessions.await == redis::Value::Int(2)
        })
        .await;
        new.cmd(&["REPLICAOF", "NO", "ONE"]).await;
        Self {
            old,
            new,
            forwarder,
            store,
            manager,
            revoked,
            live,
        }
    }

    /// Makes the old primary a replica that nothing reaches, without closing its connections.
    async fn demote(&self) {
        self.old.cmd(&["REPLICAOF", "127.0.0.1", "1"]).await;
    }

    /// Points the forwarder at the new primary; flows to the old one go on.
    fn move_address(&self) {
        self.forwarder.redirect(self.new.port());
    }

    /// Logs out at the new primary, as another service does.
    async fn revoke(&self) {
        let other = RedisStore::connect(self.new.url()).await.unwrap();
        let other: TokenManager = TokenManager::new(other);
        let revoked = other.delete_token(self.revoked.expose_secret()).await;
        assert!(revoked.unwrap());
    }

    async fn check(&self, token: &Token) -> Result<bool, Error> {
        let user = self.manager.check_token(token.expose_secret()).await?;
        Ok(user.is_some())
    }

    /// Waits, without a request, until the store has a connection to the new primary and none to the old one.
    async fn moves_while_idle(&self) {
        let begun = SystemTime::now();
        let took = within(LIMIT, "a move while idle", async || {
            let connected_at = self.store.health().primaries()[0].connected_at();
            let is_new = connected_at.is_some_and(|at| at > begun);
            is_new && connections(&self.new).await > 0 && flows(&self.old).await == 0
        })
        .await;
        println!("moved after {took:?}");
    }

    /// The store works on the new primary.
    async fn has_moved(&self) {
        assert!(!self.check(&self.revoked).await.unwrap(), "a revoked token");
        assert!(self.check(&self.live).await.unwrap(), "a live token");
        let login = self.manager.set_token("cy", None).await.unwrap();
        let sessions = async || self.new.cmd(&["HLEN", "tbs:tokens:{cy}"]).await;
        assert_eq!(sessions().await, redis::Value::Int(1), "a login");
        let logout = self.manager.delete_token(login.expose_secret()).await;
        assert!(logout.unwrap());
        assert_eq!(sessions().await, redis::Value::Int(0), "a logout");
        assert!(self.store.is_connected());
    }
}

/// How many connections stores have to a server.
async fn connections(server: &RedisServer) -> usize {
    let list = server.cmd(&["CLIENT", "LIST"]).await;
    let list: String = redis::from_redis_value(list).expect("text");
    list.lines()
        .filter(|line| line.contains("user=app"))
        .count()
}

/// The same; a server that does not answer counts as one without connections.
async fn flows(server: &RedisServer) -> usize {
    if server.is_running() {
        connections(server).await
    } else {
        0
    }
}

/// `REPLICAOF` on the connected server, under load: soon no token is accepted that was revoked at the new primary, and
/// no token is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_store_gives_up_a_server_that_is_demoted_in_place() {
    let scene = Scene::new().await;
    scene.demote().await;
    scene.revoke().await;
    let mut accepted = 0;
    let took = within(LIMIT, "the demotion is noticed", async || {
        assert!(!matches!(scene.check(&scene.live).await, Ok(false)));
        match scene.check(&scene.revoked).await {
            Ok(accept) => {
                assert!(accept, "refused by a server without the logout");
                accepted += 1;
                false
            }
            Err(error) => {
                assert!(is_unavailable(&error), "{error:?}");
                true
            }
        }
    })
    .await;
    println!("{accepted} checks of a revoked token within {took:?} of the demotion");
    assert_is_down(&scene).await;
}

/// The same store idle: its first request afterwards is not answered by the demoted server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_gives_up_a_server_that_is_demoted_in_place() {
    let scene = Scene::new().await;
    scene.demote().await;
    scene.revoke().await;
    let took = within(LIMIT, "the demotion is noticed", async || {
        !scene.store.is_connected()
    })
    .await;
    println!("noticed after {took:?}");
    assert_is_down(&scene).await;
}

/// All work fails, and says why, until a primary is at the address.
async fn assert_is_down(scene: &Scene) {
    for _ in 0..200 {
        for token in [&scene.revoked, &scene.live] {
            let error = scene.check(token).await.unwrap_err();
            assert!(is_unavailable(&error), "{error:?}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    let error = scene.manager.set_token("cy", None).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    let error = eventually_told(scene, "replica").await;
    println!("{error}");
    scene.move_address();
    eventually("the new primary", async || {
        scene.check(&scene.live).await.is_ok()
    })
    .await;
    scene.has_moved().await;
}

/// The last error of the store, as soon as it has this word.
async fn eventually_told(scene: &Scene, word: &str) -> String {
    let told = || {
        let health = scene.store.health();
        health
            .last_error()
            .map(|(_, error)| super::everything(error))
    };
    eventually("an error that tells", async || {
        told().is_some_and(|text| text.contains(word))
    })
    .await;
    told().unwrap_or_default()
}

/// A write that the demoted server refuses shows the demotion at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_ends_the_use_of_a_demoted_server() {
    let scene = Scene::new().await;
    scene.demote().await;
    scene.revoke().await;
    let error = scene.manager.set_token("cy", None).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    let error = scene.check(&scene.revoked).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
}

/// A server that tells no role is used, and its role is not watched.
#[tokio::test]
async fn a_server_that_tells_no_role_is_not_watched() {
    let server = FakeServer::start().await;
    server.hide_role();
    server.answer(|words| matches!(words, ["GET" | "HGET", ..]).then(|| NIL.to_owned()));
    let url = format!("redis://127.0.0.1:{}", server.port());
    let store = RedisStore::connect(url).await.unwrap();
    assert!(!store.health().primaries()[0].is_role_watched());
    assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
}

/// A server that is a replica from the start is no primary, and is promoted later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_taken_for_the_primary() {
    let replica = RedisServer::start(Flavor::Redis).await;
    replica.cmd(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = RedisStore::connect(replica.url()).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("replica"), "{text}");
    assert!(text.contains(&replica.port().to_string()), "{text}");
    let store = RedisStore::builder(replica.url()).connect_lazy().unwrap();
    replica.cmd(&["REPLICAOF", "NO", "ONE"]).await;
    eventually("a connection", async || store.get_user("al").await.is_ok()).await;
}

/// The address leads to another primary, while the old one goes on serving; under load. Nothing that is asked meanwhile
/// fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_store_follows_its_address() {
    let scene = Scene::new().await;
    scene.move_address();
    scene.revoke().await;
    let mut accepted = 0;
    let took = within(LIMIT, "the move is noticed", async || {
        assert!(scene.check(&scene.live).await.expect("an answer"));
        let accept = scene.check(&scene.revoked).await.expect("an answer");
        accepted += u32::from(accept);
        !accept
    })
    .await;
    println!("{accepted} checks of a revoked token within {took:?} of the move");
    for _ in 0..200 {
        scene.has_moved().await;
    }
    assert_eq!(scene.store.health().reconnects(), 0, "no connection failed");
}

/// The same with an idle store: its first request afterwards goes to the new primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_follows_its_address() {
    let scene = Scene::new().await;
    scene.move_address();
    scene.revoke().await;
    scene.moves_while_idle().await;
    scene.has_moved().await;
}

/// The address leads to another primary, because the old one hangs; under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_store_leaves_a_frozen_server_for_the_one_at_its_address() {
    let scene = Scene::new().await;
    scene.old.freeze();
    scene.move_address();
    scene.revoke().await;
    let took = within(LIMIT, "the new primary answers", async || {
        match scene.check(&scene.live).await {
            Ok(live) => {
                assert!(live);
                true
            }
            Err(_) => false,
        }
    })
    .await;
    println!("fine again after {took:?}");
    scene.has_moved().await;
    scene.old.thaw();
    for _ in 0..200 {
        scene.has_moved().await;
    }
}

/// The same with an idle store: its first request is answered, by the new primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_store_leaves_a_frozen_server_for_the_one_at_its_address() {
    let scene = Scene::new().await;
    scene.old.freeze();
    scene.move_address();
    scene.revoke().await;
    scene.moves_while_idle().await;
    scene.has_moved().await;
    scene.old.thaw();
    scene.has_moved().await;
}

/// A runtime that rests, as that of a suspended process does, cannot look after its connections: the first request
/// afterwards goes to the new primary all the same.
#[test]
fn a_store_whose_runtime_has_rested_follows_its_address() {
    let mut rests = tokio::runtime::Builder::new_current_thread();
    let rests = rests.enable_all().build().unwrap();
    let runs = tokio::runtime::Runtime::new().unwrap();
    let scene = runs.block_on(Scene::new());
    let url = format!("redis://app:pw@127.0.0.1:{}", scene.forwarder.port());
    let builder = RedisStore::builder(url).deadline(LONG_TIMEOUT);
    let store = rests.block_on(builder.connect()).unwrap();
    let manager: TokenManager = TokenManager::new(store);
    let check = async || manager.check_token(scene.revoked.expose_secret()).await;
    assert!(rests.block_on(check()).unwrap().is_some());
    scene.move_address();
    runs.block_on(scene.revoke());
    std::thread::sleep(Duration::from_secs(6));
    assert!(
        rests.block_on(check()).unwrap().is_none(),
        "a revoked token"
    );
}

/// What is in flight when the address moves is finished where it is, logins too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_in_flight_outlives_a_move() {
    let scene = Scene::new().await;
    let url = format!("redis://app:pw@127.0.0.1:{}", scene.forwarder.port());
    let store = RedisStore::builder(url).deadline(LONG_TIMEOUT);
    let manager: TokenManager = TokenManager::new(store.connect().await.unwrap());
    scene.old.freeze();
    let login = tokio::spawn(async move { manager.set_token("cy", None).await });
    sleep(Duration::from_millis(200)).await;
    scene.move_address();
    eventually("a move", async || connections(&scene.new).await == 2).await;
    scene.old.thaw();
    login.await.unwrap().expect("a login");
}

/// A store whose account has no right but the least still notices a demotion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_is_noticed_without_further_rights() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let user = ["ACL", "SETUSER", "least", "on", ">pw", "~tbs:*", "-@all"];
    let rights = ["+get", "+time", "+hget"];
    redis.cmd(&[&user[..], &rights].concat()).await;
    let url = format!("redis://least:pw@127.0.0.1:{}", redis.port());
    let store = RedisStore::connect(url).await.unwrap();
    assert!(store.health().primaries()[0].is_role_watched());
    redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]).await;
    within(LIMIT, "the demotion is noticed", async || {
        !store.is_connected()
    })
    .await;
    let log = redis.cmd(&["ACL", "LOG"]).await;
    let log: Vec<redis::Value> = redis::from_redis_value(log).expect("a list");
    let denied: Vec<_> = log.iter().map(|entry| format!("{entry:?}")).collect();
    let noisy = denied.iter().any(|entry| !entry.contains("setinfo"));
    assert!(!noisy, "{denied:#?}");
}
