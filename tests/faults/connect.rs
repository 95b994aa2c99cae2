use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tower_bearer_session::{Error, MemoryStore, RedisStore, SessionStore, TokenManager};

use super::{LONG_TIMEOUT, eventually, everything, is_unavailable, patient_store};
use crate::{
    harness::{Flavor, Proxy, RedisServer},
    stores::token_id,
};

type Manager = TokenManager;

/// Nobody is there: that is said at once, and what is to be done about it can be seen.
#[tokio::test]
async fn connecting_to_nothing_fails_at_once() {
    let redis = RedisServer::start(Flavor::Redis).await;
    redis.kill();
    let start = Instant::now();
    let error = refused(&redis.url()).await;
    println!("refused after {:?}", start.elapsed());
    assert!(is_unavailable(&error), "{error:?}");
    assert!(everything(&error).contains("refused"), "{error:?}");
}

/// Somebody is there, who never answers: the connect timeout ends the wait.
#[tokio::test]
async fn connecting_to_a_silent_peer_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let start = Instant::now();
    let error = refused(&url).await;
    println!("gave up after {:?}", start.elapsed());
    assert!(is_unavailable(&error), "{error:?}");
}

/// A wrong or missing password is a clear error that holds no password.
#[tokio::test]
async fn a_wrong_password_is_refused_and_not_told() {
    let redis = RedisServer::start_with(Flavor::Redis, &["--requirepass", "the-real-one"]).await;
    let url = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", redis.port());
    for (credentials, expected) in [
        (":hunter2@", "WRONGPASS"),
        ("default:hunter2@", "WRONGPASS"),
        ("nobody:hunter2@", "WRONGPASS"),
        ("", "NOAUTH"),
    ] {
        let error = refused(&url(credentials)).await;
        assert!(is_unavailable(&error), "{error:?}");
        let text = everything(&error);
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// Old servers, and some proxies, quote the arguments of a command that they do not know.
#[tokio::test]
async fn a_server_that_quotes_the_password_is_not_quoted() {
    assert_not_quoted("the-password").await;
}

/// They cut the quotation somewhere: not even a part of the password gets out.
#[tokio::test]
async fn a_server_that_quotes_a_part_of_the_password_is_not_quoted() {
    let long: String = ('a'..='z').cycle().take(200).collect();
    assert_not_quoted(&long).await;
}

async fn assert_not_quoted(password: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let server = thread::spawn(move || know_no_command(&listener));
    let error = refused(&format!("redis://:{password}@{address}")).await;
    let text = everything(&error);
    assert!(error.is_fault(), "{text}");
    let told = (0..=password.len() - 8).find(|&at| text.contains(&password[at..at + 8]));
    assert!(told.is_none(), "{text}");
    let served = server.join().expect("no panic");
    served.expect("a whole conversation");
}

/// A lazy store starts without its server; operations fail until there is one, then work.
#[tokio::test]
async fn a_lazy_store_waits_for_its_server() {
    let redis = RedisServer::start(Flavor::Redis).await;
    redis.kill();
    let store = RedisStore::builder(redis.url()).connect_lazy().unwrap();
    let manager = Manager::new(store);
    for _ in 0..3 {
        let error = manager.set_token("al", None).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
        sleep(Duration::from_millis(100)).await;
    }
    redis.restart().await;
    let took = eventually("connection", async || {
        manager.set_token("al", None).await.is_ok()
    })
    .await;
    println!("connected after {took:?}");
}

/// A lazy store whose server is there can be used at once: the first operation waits.
#[tokio::test]
async fn a_lazy_store_works_from_the_start() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let builder = RedisStore::builder(redis.url()).deadline(LONG_TIMEOUT);
    let manager = Manager::new(
        builder
            .connect_timeout(LONG_TIMEOUT)
            .connect_lazy()
            .unwrap(),
    );
    manager.set_token("al", None).await.unwrap();
}

/// While the server is away, operations fail at once instead of using up their deadline.
#[tokio::test]
async fn operations_fail_fast_while_the_server_is_away() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let manager = Manager::new(patient_store(&redis.url()).await);
    redis.kill();
    let start = Instant::now();
    for _ in 0..100 {
        let error = manager.set_token("al", None).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
    }
    let took = start.elapsed();
    println!("100 failures in {took:?}");
    // One wait for the deadline would be longer.
    assert!(took < LONG_TIMEOUT);
}

/// A connection that dies while the store is idle is replaced before anybody needs it.
#[tokio::test]
async fn an_idle_store_survives_the_death_of_its_connections() {
    idle_connections_are_killed(Flavor::Redis).await;
}

/// The same on Valkey.
#[tokio::test]
async fn an_idle_valkey_store_survives_the_death_of_its_connections() {
    idle_connections_are_killed(Flavor::Valkey).await;
}

async fn idle_connections_are_killed(flavor: Flavor) {
    let redis = RedisServer::start(flavor).await;
    let manager = Manager::new(patient_store(&redis.url()).await);
    let token = manager.set_token("al", None).await.unwrap();
    for round in 0..20 {
        redis.cmd(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        if round % 2 == 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let user = manager.check_token(token.expose_secret()).await.unwrap();
        assert_eq!(user.unwrap().id(), "al");
        assert_eq!(manager.list_user_tokens("al").await.unwrap().len(), 1);
    }
}

/// A store has one connection, and from the first list on two, however often they were replaced, and none when it
/// is dropped.
#[tokio::test]
async fn a_dropped_store_closes_its_connections() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let proxy = Proxy::start(redis.port()).await;
    let through_proxy = format!("redis://127.0.0.1:{}", proxy.port());
    let builder = RedisStore::builder(through_proxy).deadline(LONG_TIMEOUT);
    // While a connection is replaced there are two.
    let builder = builder.max_connection_age(Duration::from_secs(3600));
    let store = builder
        .connect_timeout(LONG_TIMEOUT)
        .connect()
        .await
        .unwrap();
    let manager = Manager::new(store.clone());
    assert_eq!(connections(&redis).await, 1);
    manager.list_user_tokens("al").await.unwrap();
    assert_eq!(connections(&redis).await, 2);
    for _ in 0..5 {
        proxy.drop_connections().await;
        manager.delete_user_tokens("al").await.unwrap();
    }
    eventually("two connections", async || connections(&redis).await == 2).await;
    drop(store);
    manager.set_token("al", None).await.unwrap();
    assert_eq!(connections(&redis).await, 2);
    drop(manager);
    eventually("no connection", async || connections(&redis).await == 0).await;
}

/// Connections that reach their greatest age are closed, on both of a store's links.
#[tokio::test]
async fn old_connections_are_closed() {
    let redis = RedisServer::start(Flavor::Redis).await;
    let builder = RedisStore::builder(redis.url()).deadline(LONG_TIMEOUT);
    let builder = builder.max_connection_age(Duration::from_millis(50));
    let store = builder
        .connect_timeout(LONG_TIMEOUT)
        .connect()
        .await
        .unwrap();
    store.list("al").await.unwrap();
    for _ in 0..20 {
        let known = connections(&redis).await;
        assert!((1..=4).contains(&known), "{known} connections");
        store.list("al").await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    drop(store);
    eventually("no connection", async || connections(&redis).await == 0).await;
}

/// A dropped store that was still trying to connect stops trying.
#[tokio::test]
async fn a_dropped_store_stops_to_connect() {
    let redis = RedisServer::start(Flavor::Redis).await;
    redis.kill();
    let store = RedisStore::builder(redis.url()).connect_lazy().unwrap();
    sleep(Duration::from_millis(50)).await;
    drop(store);
    redis.restart().await;
    // Longer than the pause between two attempts.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(connections(&redis).await, 0);
}

/// A store whose runtime is gone says so, instead of waiting for ever.
#[test]
fn a_store_outside_its_runtime_fails() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let redis = first.block_on(RedisServer::start(Flavor::Redis));
    let store = first.block_on(RedisStore::connect(redis.url())).unwrap();
    drop(first);
    let asking = async { timeout(LONG_TIMEOUT, store.get_user("al")).await };
    let answer = runtime().block_on(asking).expect("an answer");
    let error = answer.unwrap_err();
    assert!(is_unavailable(&error), "{error:?}");
}

/// Many checks at once say so, too: none waits for the pipeline that was to be shared.
#[test]
fn checks_outside_their_runtime_fail() {
    // A runtime whose tasks rest while nobody waits for one.
    let mut first = tokio::runtime::Builder::new_current_thread();
    let first = first.enable_all().build().unwrap();
    let redis = first.block_on(RedisServer::start(Flavor::Redis));
    let store = RedisStore::builder(redis.url()).deadline(10 * LONG_TIMEOUT);
    let store = first.block_on(store.connect()).unwrap();
    let second = tokio::runtime::Runtime::new().unwrap();
    let checks: Vec<_> = (0..300)
        .map(|_| {
            let store = store.clone();
            second.spawn(async move { store.check("al", &token_id(1)).await })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    drop(first);
    second.block_on(async {
        for check in checks {
            let answer = timeout(LONG_TIMEOUT, check).await.expect("an answer");
            let error = answer.unwrap().unwrap_err();
            assert!(is_unavailable(&error), "{error:?}");
        }
        let error = store.check("al", &token_id(1)).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
    });
}

/// The embedded store needs no runtime of its own: any may use it.
#[test]
fn a_memory_store_outlives_its_runtime() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let manager = runtime().block_on(async { Manager::new(MemoryStore::new()) });
    let token = runtime().block_on(manager.set_token("al", None)).unwrap();
    let user = runtime().block_on(manager.check_token(token.expose_secret()));
    assert_eq!(user.unwrap().unwrap().id(), "al");
}

/// The error of connecting with default timings, which must come soon.
async fn refused(url: &str) -> Error {
    let connecting = timeout(LONG_TIMEOUT, RedisStore::connect(url));
    let connected = connecting.await.expect("an end of the attempt");
    connected.expect_err("no connection")
}

/// How many connections of this crate the server has.
async fn connections(redis: &RedisServer) -> usize {
    let list = redis.cmd(&["CLIENT", "LIST"]).await;
    let list: String = redis::from_redis_value(list).expect("text");
    list.lines()
        .filter(|line| line.contains("user=default"))
        .count()
}

/// A server that answers the commands of one client as Redis does one that it does not know.
fn know_no_command(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    // A command is an array of strings: *<count>, then for each $<length> and the string.
    while let Some(count) = lines.next() {
        let count: usize = count?[1..].parse().expect("a count");
        let mut words = Vec::new();
        for _ in 0..count {
            let _length = lines.next().expect("a length")?;
            words.push(lines.next().expect("a string")?);
        }
        let mut args: String = words[1..].iter().map(|it| format!("'{it}' ")).collect();
        // As Redis does.
        args.truncate(128);
        let name = &words[0];
        let answer = format!("-ERR unknown command '{name}', with args beginning with: {args}\r\n");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}
