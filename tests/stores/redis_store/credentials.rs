//! Credentials that change.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::net::lookup_host;
use tower_bearer_session::{ErrorKind, RedisCredentials, RedisStore, RedisStoreBuilder};

use support::eventually;

use super::everything;
use crate::harness::{Cluster, Flavor, RedisServer};

/// What a store logs in with.
#[derive(Clone, Default)]
struct Vault {
    password: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn set(&self, password: &str) {
        *self.password.lock().unwrap() = Some(password.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn builder(&self, redis: &RedisServer) -> RedisStoreBuilder {
        let vault = self.clone();
        let builder = RedisStore::builder(redis.url()).deadline(Duration::from_secs(5));
        builder.credentials_from(move || {
            vault.asked.fetch_add(1, Ordering::Relaxed);
            let password = vault.password.lock().unwrap().clone();
            async move {
                let password = password.ok_or("the vault is sealed")?;
                Ok::<_, &str>(RedisCredentials::new("app", password))
            }
        })
    }
}

/// A server with the user "app".
async fn server(password: &str) -> RedisServer {
    let redis = RedisServer::start(Flavor::Redis).await;
    set_password(&redis, password).await;
    redis.cmd(&["ACL", "SETUSER", "default", "resetpass"]).await;
    redis
}

async fn set_password(redis: &RedisServer, password: &str) {
    let password = format!(">{password}");
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        "resetpass",
        &password,
        "~*",
        "&*",
        "+@all",
    ];
    redis.cmd(&user).await;
}

/// Every connection asks for the credentials, and those that the server closes after a rotation are replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_be_rotated() {
    let redis = server("hunter1").await;
    let vault = Vault::default();
    vault.set("hunter1");
    let store = vault.builder(&redis).connect().await.unwrap();
    everything(&store, "al").await.unwrap();
    for n in 2..5 {
        let password = format!("hunter{n}");
        set_password(&redis, &password).await;
        vault.set(&password);
        let asked = vault.asked();
        redis.cmd(&["CLIENT", "KILL", "USER", "app"]).await;
        eventually("all operations", async || {
            everything(&store, &format!("user{n}")).await.is_ok()
        })
        .await;
        assert!(vault.asked() > asked);
    }
}

/// A source that fails is an outage, which tells why, and ends when the source works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_nothing_works_until_there_are_some() {
    let redis = server("hunter2").await;
    let vault = Vault::default();
    let store = vault.builder(&redis).connect_lazy().unwrap();
    let error = everything(&store, "al").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let last = format!("{:?}", store.health().last_error().unwrap());
    assert!(last.contains("the vault is sealed"), "{last}");

    vault.set("wrong-hunter");
    eventually("a refused login", async || {
        format!("{:?}", store.health().last_error().unwrap()).contains("WRONGPASS")
    })
    .await;
    let last = format!("{:?}", store.health().last_error().unwrap());
    assert!(!last.contains("wrong-hunter"), "{last}");
    vault.set("hunter2");
    eventually("all operations", async || {
        everything(&store, "bo").await.is_ok()
    })
    .await;
}

/// A panic of the application's functions is a fault of a moment, for each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_that_panic_are_called_again() {
    for cluster in [false, true] {
        let redis = match cluster {
            false => Servers::One(server("hunter2").await),
            true => Servers::Cluster(Cluster::start(Flavor::Redis).await),
        };
        let calls: [Arc<AtomicUsize>; 2] = Default::default();
        let counters = calls.clone();
        let panics_at_first = move |which: usize| {
            let call = counters[which].fetch_add(1, Ordering::Relaxed);
            assert!(!call.is_multiple_of(3), "hunter2");
        };
        let (first, second) = (panics_at_first.clone(), panics_at_first);
        let builder = RedisStore::builder(redis.url())
            .max_connection_age(Duration::from_millis(300))
            .deadline(Duration::from_secs(5))
            .resolve_with(move |host, port| {
                first(0);
                async move { Ok::<_, std::io::Error>(lookup_host((host, port)).await?.collect()) }
            });
        let store = match cluster {
            true => builder.connect_lazy(),
            false => builder
                .credentials_from(move || {
                    second(1);
                    async { Ok::<_, &str>(RedisCredentials::new("app", "hunter2")) }
                })
                .connect_lazy(),
        };
        let store = store.unwrap();
        for n in 0..5 {
            eventually("all operations", async || {
                everything(&store, &format!("user{n}")).await.is_ok()
            })
            .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let calls = calls.map(|calls| calls.load(Ordering::Relaxed));
        assert!(calls[0] > 6, "{calls:?}");
        let last = format!("{:?}", store.health().last_error().unwrap());
        assert!(last.contains("has panicked"), "{last}");
        assert!(!last.contains("hunter2"), "{last}");
    }
}

enum Servers {
    One(RedisServer),
    Cluster(Cluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }
}

/// Nobody can tell which of the two counts.
#[tokio::test]
async fn there_is_one_way_to_log_in() {
    let vault = Vault::default();
    let redis = server("hunter2").await;
    let error = vault.builder(&redis).password("hunter2").connect().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
    let credentials = RedisCredentials::of_default_user("hunter2");
    assert!(
        !format!("{credentials:?}").contains("hunter"),
        "{credentials:?}"
    );
}
