//! Checks that the near-cache answers, and how soon it learns of changes.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use http::{Request, Response, header::AUTHORIZATION};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    NearCache, OnFull, RedisStore, SessionLayer, SessionStore, TokenId, TokenManager,
    store::{PutMode, SessionChange},
};

use super::{is_hit, lasting, near_store, warm};
use crate::stores::{
    HOUR, Server, at_once, commands_of, limit, log_in, on_every_server, replacement, session,
    token_id,
};

on_every_server!(
    a_hit_does_not_ask_the_server,
    without_a_near_cache_nothing_is_asked_or_known,
    a_check_always_asks_the_server,
    only_live_sessions_are_kept,
    a_hit_is_what_a_check_finds,
    own_writes_are_seen_when_they_return,
    a_change_by_another_store_is_seen_soon,
    checks_at_the_same_time_are_all_kept,
    a_flush_drops_everything,
    health_tells_what_was_done,
    a_layer_that_always_asks_takes_no_hit,
);

async fn a_hit_does_not_ask_the_server(backend: &impl Server) {
    for near in [lasting(), lasting().per_key()] {
        let store = near_store(backend.server(), near).await;
        log_in(&store, "al", &token_id(1)).await;
        warm(&store, "al", &token_id(1)).await;
        let (commands, ()) = commands_of(backend.server(), async {
            for _ in 0..1000 {
                assert!(is_hit(&store, "al", &token_id(1)));
            }
        })
        .await;
        assert!(!commands.contains_key("hget"), "{commands:?}");
        store.delete("al", &token_id(1)).await.unwrap();
    }
}

async fn without_a_near_cache_nothing_is_asked_or_known(backend: &impl Server) {
    let server = backend.server();
    let (commands, store) = commands_of(server, backend.store()).await;
    let tracking = commands.keys().filter(|name| name.starts_with("client|"));
    assert_eq!(tracking.count(), 0, "{commands:?}");
    let id = token_id(1);
    log_in(&store, "al", &id).await;
    let check = store.check("al", &id);
    let (commands, checked) = commands_of(server, check).await;
    assert!(checked.unwrap().is_some());
    let lookup = ["get", "hget", "time"].map(|name| (name.to_owned(), 1));
    assert_eq!(commands, lookup.into());
    assert!(store.check_now("al", &token_id(1)).is_none());
    assert!(store.health().near_cache().is_none());
}

async fn a_check_always_asks_the_server(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    log_in(&store, "al", &token_id(1)).await;
    warm(&store, "al", &token_id(1)).await;
    let (commands, ()) = commands_of(backend.server(), async {
        for _ in 0..10 {
            store.check("al", &token_id(1)).await.unwrap().unwrap();
        }
    })
    .await;
    assert_eq!(commands["hget"], 10);
}

async fn only_live_sessions_are_kept(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    log_in(&store, "al", &token_id(1)).await;
    warm(&store, "al", &token_id(1)).await;
    for (user_id, id) in [("al", 2), ("bo", 1)] {
        assert!(store.check(user_id, &token_id(id)).await.unwrap().is_none());
        assert!(store.check_now(user_id, &token_id(id)).is_none());
    }
    // Somebody else's value at the key.
    backend
        .server()
        .cmd(&["SADD", "tbs:tokens:{cy}", "x"])
        .await;
    store.check("cy", &token_id(1)).await.unwrap_err();
    assert!(store.check_now("cy", &token_id(1)).is_none());
}

async fn a_hit_is_what_a_check_finds(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    let (user, id) = ("a{l}%", token_id(1));
    let mut new = session(HOUR);
    new.metadata = Some("{\"a\":1}".into());
    new.max_lifetime = Some(2 * HOUR);
    store.create(user, &id, &new, None).await.unwrap();
    let change = replacement(id, token_id(9), HOUR);
    store.update(user, &id, &change).await.unwrap().unwrap();
    for value in [None, Some(b"value")] {
        if let Some(value) = value {
            let put = store.put_user(user, value, HOUR, PutMode::Replace);
            assert!(put.await.unwrap());
        }
        warm(&store, user, &id).await;
        let before = store.check(user, &id).await.unwrap().unwrap();
        let hit = store.check_now(user, &id).unwrap().unwrap().unwrap();
        let after = store.check(user, &id).await.unwrap().unwrap();
        assert_eq!((&hit.session, &hit.user), (&before.session, &before.user));
        assert!(before.now <= hit.now && hit.now <= after.now, "{hit:?}");
        assert_eq!(hit.user.as_deref(), value.map(|value| &value[..]));
    }
}

/// Each of them at least drops what is known of the user.
async fn own_writes_are_seen_when_they_return(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    let new = session(HOUR);
    let [id, other] = [token_id(1), token_id(2)];
    for round in 0..20 {
        let user = &*format!("user {round}");
        log_in(&store, user, &id).await;
        warm(&store, user, &id).await;
        let refreshed = store.refresh(user, &id, 2 * HOUR);
        assert!(refreshed.await.unwrap());
        assert!(!is_hit(&store, user, &id), "a refresh");
        warm(&store, user, &id).await;
        let mut change = SessionChange::default();
        change.metadata = Some("{}".into());
        store.update(user, &id, &change).await.unwrap().unwrap();
        assert!(!is_hit(&store, user, &id), "a change");
        warm(&store, user, &id).await;
        let put = store.put_user(user, b"x", HOUR, PutMode::Replace);
        assert!(put.await.unwrap());
        assert!(!is_hit(&store, user, &id), "a cached value");
        warm(&store, user, &id).await;
        let evicting = limit(1, OnFull::EvictOldest);
        store.create(user, &other, &new, evicting).await.unwrap();
        assert!(!is_hit(&store, user, &id), "an eviction");
        assert!(store.check(user, &id).await.unwrap().is_none());
        warm(&store, user, &other).await;
        assert!(store.delete(user, &other).await.unwrap());
        assert!(!is_hit(&store, user, &other), "a logout");
        log_in(&store, user, &id).await;
        warm(&store, user, &id).await;
        assert_eq!(store.delete_all(user, None).await.unwrap(), 1);
        assert!(!is_hit(&store, user, &id), "a logout of all");
    }
}

async fn a_change_by_another_store_is_seen_soon(backend: &impl Server) {
    const ROUNDS: usize = 200;
    let other = backend.store().await;
    for near in [NearCache::new(), NearCache::new().per_key()] {
        let store = near_store(backend.server(), near).await;
        let mut lags = Vec::new();
        for round in 0..ROUNDS {
            let (user, id) = (&*format!("user {round}"), &token_id(1));
            log_in(&other, user, id).await;
            warm(&store, user, id).await;
            assert!(other.delete(user, id).await.unwrap());
            let acknowledged = Instant::now();
            // Another worker handles the announcement.
            // When the last hit began.
            let mut lag = Duration::ZERO;
            loop {
                let begun = acknowledged.elapsed();
                if !is_hit(&store, user, id) {
                    break;
                }
                lag = begun;
                std::thread::yield_now();
            }
            lags.push(lag);
        }
        lags.sort();
        println!(
            "lag: p50 {:?}, p99 {:?}",
            lags[ROUNDS / 2],
            lags[ROUNDS * 99 / 100]
        );
        assert!(lags[ROUNDS - 1] <= Duration::from_millis(300), "{lags:?}");
    }
}

async fn checks_at_the_same_time_are_all_kept(backend: &impl Server) {
    const MANY: usize = 500;
    let store = near_store(backend.server(), lasting()).await;
    let user = |n: usize| format!("user {n}");
    for n in 0..MANY {
        log_in(&store, &user(n), &token_id(n as u128)).await;
        if n % 2 == 0 {
            let (user, mode) = (user(n), PutMode::Replace);
            let put = store.put_user(&user, user.as_bytes(), HOUR, mode);
            assert!(put.await.unwrap());
        }
    }
    warm(&store, &user(0), &token_id(0)).await;
    at_once(MANY, |n| {
        let store = store.clone();
        async move {
            store
                .check(&user(n), &token_id(n as u128))
                .await
                .unwrap()
                .unwrap()
        }
    })
    .await;
    for n in 0..MANY {
        let hit = store.check_now(&user(n), &token_id(n as u128));
        let hit = hit
            .unwrap_or_else(|| panic!("no hit for {n}"))
            .unwrap()
            .unwrap();
        let expected = (n % 2 == 0).then(|| user(n));
        assert_eq!(hit.user.as_deref(), expected.as_deref().map(str::as_bytes));
    }
}

async fn a_flush_drops_everything(backend: &impl Server) {
    for near in [lasting(), lasting().per_key()] {
        let store = near_store(backend.server(), near).await;
        let id = token_id(1);
        for user in ["al", "bo"] {
            log_in(&store, user, &id).await;
            warm(&store, user, &id).await;
        }
        backend.server().cmd(&["FLUSHALL"]).await;
        // Every announcement comes before the reply.
        store.get_user("nobody").await.unwrap();
        assert!(!is_hit(&store, "al", &id) && !is_hit(&store, "bo", &id));
    }
}

async fn health_tells_what_was_done(backend: &impl Server) {
    let store = near_store(backend.server(), lasting()).await;
    let health = |store: &RedisStore| *store.health().near_cache().unwrap();
    let id: &TokenId = &token_id(1);
    let empty = health(&store);
    assert_eq!([empty.hits, empty.misses, empty.invalidations], [0; 3]);
    assert!(!is_hit(&store, "al", id));
    log_in(&store, "al", id).await;
    warm(&store, "al", id).await;
    assert!(is_hit(&store, "al", id));
    let used = health(&store);
    assert!(used.hits >= 2 && used.misses >= 1, "{used:?}");
    assert_eq!(used.lease_losses, 0);
    assert!(
        used.invalidations >= 1 && used.bytes > empty.bytes,
        "{used:?}"
    );
}

/// A route that always asks is not served after a logout, although the near-cache would.
async fn a_layer_that_always_asks_takes_no_hit(backend: &impl Server) {
    let server = backend.server();
    let manager = TokenManager::new(near_store(server, lasting()).await);
    let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let layer = SessionLayer::new(manager.clone());
    let token = manager.set_token("al", None).await.unwrap();
    let status = async |layer: SessionLayer| {
        let bearer = format!("Bearer {}", token.expose_secret());
        let request = Request::builder().header(AUTHORIZATION, bearer);
        let response = layer.layer(handler).oneshot(request.body(()).unwrap());
        response.await.unwrap().status()
    };
    assert_eq!(status(layer.clone()).await, 200);
    let (hits, _) = commands_of(server, status(layer.clone())).await;
    assert_eq!(hits.get("hget"), None);
    let (asked, _) = commands_of(server, status(layer.clone().always_ask())).await;
    assert_eq!(asked["hget"], 1);
}
