use std::time::{Duration, Instant};

use reqwest::{Response, header::RETRY_AFTER};
use serde_json::{Value, json};
use tower_bearer_session::{RedisStore, TokenManager};

use super::{Load, Server, eventually, is_unavailable, patient_store, serve, service};
use crate::harness::{Flavor, RedisServer};

/// The password is rotated away under a running service, and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_rotated_away_and_back() {
    let redis = RedisServer::start_with(Flavor::Redis, &["--requirepass", "old"]).await;
    let server = service(&url(&redis, ":old")).await;
    let mut load = Load::start(&server).await;
    redis.cmd(&["CONFIG", "SET", "requirepass", "new"]).await;
    // Connections that are logged in stay so.
    load.runs().await;
    redis.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    load.suffers().await;
    redis.cmd(&["CONFIG", "SET", "requirepass", "old"]).await;
    load.recovers("password back").await;
    load.finish().await;
}

/// The same with an ACL user, who is switched off, loses the password, and is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acl_user_is_taken_away_and_comes_back() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let back = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"];
    redis.cmd(&back).await;
    let server = service(&url(&redis, "app:pw")).await;
    let mut load = Load::start(&server).await;
    let away: [&[&str]; 3] = [
        &["ACL", "SETUSER", "app", "off"],
        &["ACL", "SETUSER", "app", "resetpass", ">other"],
        &["ACL", "DELUSER", "app"],
    ];
    for command in away {
        redis.cmd(command).await;
        // Connections that are logged in stay so, unless the user is gone.
        if command[1] == "SETUSER" {
            redis.cmd(&["CLIENT", "KILL", "USER", "app"]).await;
        }
        load.suffers().await;
        redis.cmd(&back).await;
        load.recovers(&command.join(" ")).await;
    }
    load.finish().await;
}

/// The ACL user may not do for a while what the store has to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_taken_away_and_come_back() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let back = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"];
    redis.cmd(&back).await;
    let server = service(&url(&redis, "app:pw")).await;
    let mut load = Load::start(&server).await;
    for rights in ["-hget", "-@all", "resetkeys"] {
        redis.cmd(&["ACL", "SETUSER", "app", rights]).await;
        load.suffers().await;
        redis.cmd(&back).await;
        load.recovers(rights).await;
    }
    load.finish().await;
}

/// A full server takes no login and invalidates no cached user, but checks and logouts go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_is_full() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let server = service(&redis.url()).await;
    let (leaving, staying) = two_clients(&server).await;
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_unavailable(&login(&server).await);
    assert_refuses_logins(&redis).await;
    let manager = manager(&redis).await;
    let error = manager.delete_user("staying").await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
    assert_eq!(staying.status("/me").await, 200);
    assert_eq!(leaving.post("/logout", &Value::Null).await.status(), 200);
    assert_eq!(leaving.status("/me").await, 401);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(login(&server).await.status(), 200);
    assert_eq!(staying.status("/me").await, 200);
}

/// A login that finds the memory full has not ended the session that was to make room for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_login_evicts_nobody() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let manager = support::app::builder(store).single_mode().build().unwrap();
    let server = Server::axum(support::app::app(manager)).await;
    let client = server.login("new", "phone").await;
    assert_eq!(client.status("/me").await, 200);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let response = login(&server).await;
    // Either the login is done or it is not.
    let expected = match response.status().as_u16() {
        200 => 401,
        503 => 200,
        other => panic!("{other}"),
    };
    assert_eq!(client.status("/me").await, expected);
}

/// A server that misses its replicas takes neither logins nor logouts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_missing() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let server = service(&redis.url()).await;
    let (leaving, staying) = two_clients(&server).await;
    let replicas = "min-replicas-to-write";
    redis.cmd(&["CONFIG", "SET", replicas, "1"]).await;
    assert_unavailable(&login(&server).await);
    assert_refuses_logins(&redis).await;
    assert_unavailable(&leaving.post("/logout", &Value::Null).await);
    assert_eq!(leaving.status("/me").await, 200);
    assert_eq!(staying.status("/me").await, 200);
    redis.cmd(&["CONFIG", "SET", replicas, "0"]).await;
    assert_eq!(login(&server).await.status(), 200);
    assert_eq!(leaving.post("/logout", &Value::Null).await.status(), 200);
}

/// Somebody's script keeps the server busy, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_keeps_the_server_busy() {
    let redis = RedisServer::start_with(Flavor::Redis, &["--lua-time-limit", "50"]).await;
    let server = service(&redis.url()).await;
    let mut load = Load::start(&server).await;
    let mut client = redis.client().await;
    let script = tokio::spawn(async move {
        let endless = redis::cmd("EVAL").arg("while true do end").arg(0).take();
        endless.exec_async(&mut client).await
    });
    load.suffers().await;
    redis.cmd(&["SCRIPT", "KILL"]).await;
    load.recovers("script killed").await;
    load.finish().await;
    script.await.unwrap().expect_err("a killed script");
}

/// A restarted server that still loads its data is not ready, and is used as soon as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_loading() {
    // Loading takes 20 ms a key, and the server answers in between.
    let slowly = ["--key-load-delay", "20000"];
    let often = ["--loading-process-events-interval-bytes", "1024"];
    let redis = RedisServer::start_with(Flavor::Redis, &[slowly, often].concat()).await;
    for number in 0..100 {
        let (key, value) = (format!("filler{number}"), "x".repeat(2000));
        redis.cmd(&["SET", &key, &value]).await;
    }
    // The dataset must not shrink again.
    redis.cmd(&["CONFIG", "SET", "rdbcompression", "no"]).await;
    let server = service(&redis.url()).await;
    let (_, staying) = two_clients(&server).await;
    redis.cmd(&["SAVE"]).await;
    redis.restart().await;
    let loading = redis.cmd(&["INFO", "persistence"]).await;
    assert!(format!("{loading:?}").contains("loading:1"), "{loading:?}");
    let refused = RedisStore::connect(redis.url()).await.unwrap_err();
    assert!(is_unavailable(&refused), "{refused:?}");
    assert_unavailable(&staying.get("/me").await);
    let took = eventually("recovery", async || {
        let response = staying.get("/me").await;
        if response.status() != 200 {
            assert_unavailable(&response);
        }
        response.status() == 200
    })
    .await;
    println!("loaded: fine again after {took:?}");
    assert_eq!(login(&server).await.status(), 200);
}

/// A replica is not used, for checks neither: it may not have heard of a logout. When it becomes the master it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_promoted() {
    replica_is_promoted(Flavor::Redis).await;
}

/// The same with Valkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valkey_replica_is_promoted() {
    replica_is_promoted(Flavor::Valkey).await;
}

async fn replica_is_promoted(flavor: Flavor) {
    let (master, replica) = (
        RedisServer::start(flavor).await,
        RedisServer::start(flavor).await,
    );
    let port = master.port().to_string();
    replica.cmd(&["REPLICAOF", "127.0.0.1", &port]).await;
    let at_master = service(&master.url()).await;
    let refused = RedisStore::connect(replica.url()).await.unwrap_err();
    assert!(is_unavailable(&refused), "{refused:?}");
    let at_replica = RedisStore::builder(replica.url()).connect_lazy();
    let at_replica = serve(at_replica.expect("a store")).await;
    let (staying, _) = two_clients(&at_master).await;
    let there = at_replica.client();
    let there = there.with_token(staying.token.as_ref().expect("a token"));
    eventually("replication", async || {
        replica.cmd(&["EXISTS", "tbs:tokens:{staying}"]).await == redis::Value::Int(1)
    })
    .await;
    for _ in 0..3 {
        assert_unavailable(&login(&at_replica).await);
        assert_unavailable(&there.post("/logout", &Value::Null).await);
        assert_unavailable(&there.get("/me").await);
    }
    // A replica that has lost its master and says so.
    let stale = "replica-serve-stale-data";
    replica.cmd(&["CONFIG", "SET", stale, "no"]).await;
    master.kill();
    for _ in 0..100 {
        assert_unavailable(&there.get("/me").await);
    }
    replica.cmd(&["REPLICAOF", "NO", "ONE"]).await;
    let took = eventually("recovery", async || {
        let response = login(&at_replica).await;
        if response.status() != 200 {
            assert_unavailable(&response);
        }
        response.status() == 200
    })
    .await;
    println!("{flavor:?} promoted: fine again after {took:?}");
    assert_eq!(there.status("/me").await, 200);
    assert_eq!(there.post("/logout", &Value::Null).await.status(), 200);
    assert_eq!(there.status("/me").await, 401);
}

/// Logins that the server refuses, one after the other, do not keep it from answering checks, and cost no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_logins_leave_checks_alone() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let store = patient_store(&redis.url()).await;
    let manager: TokenManager = TokenManager::new(store.clone());
    let token = manager.set_token("al", None).await.unwrap();
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let logins = tokio::spawn({
        let manager = manager.clone();
        async move {
            for _ in 0..20 {
                let error = manager.set_token("al", None).await.unwrap_err();
                assert!(is_unavailable(&error), "{error:?}");
            }
        }
    });
    let (mut checks, mut slowest) = (0, Duration::ZERO);
    while !logins.is_finished() {
        let start = Instant::now();
        let check = manager.check_token(token.expose_secret()).await;
        assert!(check.unwrap().is_some());
        slowest = slowest.max(start.elapsed());
        checks += 1;
    }
    logins.await.unwrap();
    println!("{checks} checks while logins were refused, the slowest in {slowest:?}");
    assert_eq!(store.health().reconnects(), 0);
}

/// A server with no connection to spare is unavailable until there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_has_no_connection_to_spare() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let server = service(&redis.url()).await;
    let client = server.login("al", "phone").await;
    let (mut first, _second) = (redis.client().await, redis.client().await);
    let mut set = async |max: u32| {
        let config = redis::cmd("CONFIG")
            .arg(&["SET", "maxclients"])
            .arg(max)
            .take();
        config
            .exec_async(&mut first)
            .await
            .expect("a connection that stays");
    };
    set(2).await;
    let refused = RedisStore::connect(redis.url()).await.unwrap_err();
    assert!(is_unavailable(&refused), "{refused:?}");
    set(10).await;
    assert_eq!(client.status("/me").await, 200);
}

/// A client that logs out, and one that stays; their users are cached.
async fn two_clients(server: &Server) -> (support::app::Client, support::app::Client) {
    let clients = (
        server.login("leaving", "phone").await,
        server.login("staying", "phone").await,
    );
    assert_eq!(clients.0.status("/me").await, 200);
    assert_eq!(clients.1.status("/me").await, 200);
    clients
}

async fn login(server: &Server) -> Response {
    server
        .client()
        .post("/login", &json!({"user": "new"}))
        .await
}

/// The error of a login says that the server is unavailable, not that something in it is wrong.
async fn assert_refuses_logins(redis: &RedisServer) {
    let manager = manager(redis).await;
    let error = manager.set_token("al", None).await.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
}

async fn manager(redis: &RedisServer) -> TokenManager {
    let store = RedisStore::connect(redis.url()).await.expect("a store");
    TokenManager::new(store)
}

fn assert_unavailable(response: &Response) {
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(RETRY_AFTER));
}

fn url(redis: &RedisServer, credentials: &str) -> String {
    format!("redis://{credentials}@127.0.0.1:{}", redis.port())
}
