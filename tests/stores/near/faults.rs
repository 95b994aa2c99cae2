//! The promise: no token is accepted later than `max_staleness` after its logout was acknowledged, whatever fails.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tower_bearer_session::{NearCache, RedisStore, SessionStore};

use super::{LONG_TIMEOUT, is_hit, warm};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::{log_in, token_id},
};

/// The server, reached by one store directly and by one with a near-cache through a proxy.
struct Scene {
    server: RedisServer,
    proxy: Proxy,
    direct: RedisStore,
    near: RedisStore,
}

const MAX_STALENESS: Duration = Duration::from_millis(300);

/// `CLIENT REPLY SKIP`, so that there is no reply to the next command: `CLIENT TRACKING OFF`.
pub(super) const TRACKING_OFF: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n\
    *3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n";

impl Scene {
    async fn new(near: NearCache) -> Self {
        let server = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = RedisStore::builder(server.url()).deadline(LONG_TIMEOUT);
        let direct = direct
            .connect_timeout(LONG_TIMEOUT)
            .connect()
            .await
            .unwrap();
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let near = RedisStore::builder(url).near_cache(near.max_staleness(MAX_STALENESS));
        let near = near.connect_timeout(LONG_TIMEOUT).connect().await.unwrap();
        Self {
            server,
            proxy,
            direct,
            near,
        }
    }

    /// Logs a user out directly after `fault`, and watches how long the near-cache lets the token pass.
    async fn lag_after(&self, user: &str, fault: impl AsyncFnOnce(&Self)) -> Duration {
        let id = token_id(1);
        log_in(&self.direct, user, &id).await;
        warm(&self.near, user, &id).await;
        fault(self).await;
        assert!(self.direct.delete(user, &id).await.unwrap());
        self.last_hit(user, Instant::now()).await
    }

    /// How long after this moment the near-cache begins to answer for the last time.
    async fn last_hit(&self, user: &str, since: Instant) -> Duration {
        let id = token_id(1);
        let mut last = Duration::ZERO;
        while since.elapsed() < 4 * MAX_STALENESS {
            let begun = since.elapsed();
            if is_hit(&self.near, user, &id) {
                last = begun;
            }
            tokio::task::yield_now().await;
        }
        last
    }
}

/// Both kinds of announcements.
fn kinds() -> [NearCache; 2] {
    [NearCache::new(), NearCache::new().per_key()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_delays_a_logout_by_the_staleness_at_most() {
    for near in kinds() {
        let scene = Scene::new(near).await;
        let lag = scene
            .lag_after("al", async |scene| scene.proxy.black_hole_existing())
            .await;
        println!("black hole: {lag:?}");
        assert!(lag <= MAX_STALENESS, "{lag:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_announces_no_more_delays_a_logout_by_the_staleness_at_most() {
    for (round, near) in kinds().into_iter().cycle().take(6).enumerate() {
        let scene = Scene::new(near).await;
        let lag = scene
            .lag_after("al", async |scene| {
                scene.proxy.inject(TRACKING_OFF);
                // At any time between two heartbeats.
                sleep(MAX_STALENESS / 3 * round as u32 / 6).await;
            })
            .await;
        println!("tracking off: {lag:?}");
        assert!(lag <= MAX_STALENESS, "{lag:?}");
        // A new connection is made, on which the server announces changes again.
        log_in(&scene.direct, "bo", &token_id(1)).await;
        warm(&scene.near, "bo", &token_id(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_delays_a_logout_by_the_staleness_at_most() {
    let scene = Scene::new(NearCache::new()).await;
    for millis in [20, 60, 100] {
        scene.proxy.set_delay(Duration::from_millis(millis));
        let user = format!("user {millis}");
        let lag = scene.lag_after(&user, async |_| {}).await;
        println!("{millis} ms each way: {lag:?}");
        assert!(lag <= MAX_STALENESS, "{lag:?}");
    }
    // Replies take longer than the lease.
    scene.proxy.set_delay(Duration::from_millis(200));
    sleep(2 * MAX_STALENESS).await;
    log_in(&scene.direct, "cy", &token_id(1)).await;
    for _ in 0..3 {
        let checked = scene.near.check("cy", &token_id(1)).await;
        assert!(!is_hit(&scene.near, "cy", &token_id(1)), "{checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_not_stood_in_for() {
    let scene = Scene::new(NearCache::new()).await;
    log_in(&scene.direct, "al", &token_id(1)).await;
    warm(&scene.near, "al", &token_id(1)).await;
    scene.server.freeze();
    let lag = scene.last_hit("al", Instant::now()).await;
    println!("frozen: {lag:?}");
    assert!(lag <= MAX_STALENESS, "{lag:?}");
    scene.server.thaw();
    warm(&scene.near, "al", &token_id(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outlives_its_connection() {
    let scene = Scene::new(NearCache::new().max_staleness(Duration::from_secs(10))).await;
    for user in ["al", "bo"] {
        log_in(&scene.direct, user, &token_id(1)).await;
    }
    warm(&scene.near, "al", &token_id(1)).await;
    scene.proxy.refuse(true);
    scene.proxy.drop_connections().await;
    // The end of the connection has to be read, which a busy machine delays; the lease would hold for 10 s.
    let lag = scene.last_hit("al", Instant::now()).await;
    println!("dropped: {lag:?}");
    assert!(lag < 3 * MAX_STALENESS, "{lag:?}");
    scene.proxy.refuse(false);
    warm(&scene.near, "al", &token_id(1)).await;

    warm(&scene.near, "bo", &token_id(1)).await;
    scene.server.kill();
    let lag = scene.last_hit("bo", Instant::now()).await;
    println!("killed: {lag:?}");
    assert!(lag < 3 * MAX_STALENESS, "{lag:?}");
    scene.server.restart().await;
    assert!(!is_hit(&scene.near, "bo", &token_id(1)));
}
