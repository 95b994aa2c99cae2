use std::{
    collections::BTreeMap, convert::Infallible, fmt::Debug, sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use ::redis::{FromRedisValue, from_redis_value};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned, ser};
use tower_bearer_session::{
    ErrorKind, SessionStore, TokenManager,
    store::{MAX_TTL, PutMode},
};

use super::{built, loading, log_in};
use crate::stores::{Backend, HOUR, SHORT, Server, on_every_store, outlive_short};

on_every_store!(
    a_detail_is_the_same_on_a_miss_and_on_a_hit,
    a_changed_type_is_loaded_anew,
    garbage_is_loaded_anew,
    a_cached_user_is_loaded_anew_after_its_time,
    without_a_loader_there_is_what_is_cached,
    a_detail_that_cannot_be_written_is_an_error,
    a_user_ttl_that_cannot_be_is_refused;
    servers:
    the_value_is_the_documented_json,
    the_key_lives_as_long_as_it_is_told,
);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Detail {
    name: String,
    big: u64,
    small: i64,
    ratio: f64,
    nothing: Option<u8>,
    role: Role,
    tags: Vec<(String, bool)>,
    numbers: BTreeMap<i32, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Role {
    Guest,
    Clerk { shop: u32 },
}

/// Whether a user is loaded or cached makes no difference.
async fn a_detail_is_the_same_on_a_miss_and_on_a_hit(backend: &impl Backend) {
    let detail = Detail {
        name: "Zoë \"漢字\" \u{1F980}\0".to_owned(),
        big: u64::MAX,
        small: i64::MIN,
        ratio: 0.1,
        nothing: None,
        role: Role::Clerk { shop: 7 },
        tags: vec![("x".to_owned(), true)],
        numbers: BTreeMap::from([(-1, "minus".to_owned())]),
    };
    let (manager, loads) = loading(backend, detail.clone()).await;
    let token = log_in(&manager, "al").await;
    for _ in 0..3 {
        assert_eq!(check(&manager, &token).await, Some(detail.clone()));
    }
    assert_eq!(loads.load(SeqCst), 1);
    let guest = Detail {
        role: Role::Guest,
        ..detail
    };
    let (elsewhere, _) = loading(backend, guest.clone()).await;
    elsewhere.add_user("al", None).await.unwrap();
    assert_eq!(check(&manager, &token).await, Some(guest));
}

/// A deploy that changes the user type finds old values in the cache: they are loaded anew, and never an error.
async fn a_changed_type_is_loaded_anew(backend: &impl Backend) {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        name: String,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct After {
        name: (String, String),
    }
    let old = Before {
        name: "Al Bo".into(),
    };
    let new = After {
        name: ("Al".into(), "Bo".into()),
    };
    let (before, _) = loading(backend, old.clone()).await;
    let (after, loads) = loading(backend, new.clone()).await;
    let token = log_in(&before, "al").await;
    assert_eq!(check(&before, &token).await, Some(old.clone()));
    for _ in 0..3 {
        assert_eq!(check(&after, &token).await, Some(new.clone()));
    }
    assert_eq!(loads.load(SeqCst), 1);
    // While both are deployed, each gets on with what the other wrote.
    for _ in 0..3 {
        assert_eq!(check(&before, &token).await, Some(old.clone()));
        assert_eq!(check(&after, &token).await, Some(new.clone()));
    }
}

/// Whatever else is in the user's place is loaded anew, and replaced.
async fn garbage_is_loaded_anew(backend: &impl Backend) {
    let (manager, loads) = loading(backend, 7).await;
    let token = log_in(&manager, "al").await;
    let (store, replace) = (backend.store().await, PutMode::Replace);
    let garbage: [&[u8]; 8] = [
        b"x",
        b"\xff\xfe",
        b"{}",
        b"null",
        br#"{"id":"al"}"#,
        br#"{"id":"al","detail":"seven"}"#,
        // Of another user: a mistake in the keys must not mix users up.
        br#"{"id":"bo","detail":8}"#,
        br#"{"id":"al","detail":8}x"#,
    ];
    for (expected, value) in (1..).zip(garbage) {
        store.put_user("al", value, HOUR, replace).await.unwrap();
        assert_eq!(check(&manager, &token).await, Some(7));
        assert_eq!(check(&manager, &token).await, Some(7));
        assert_eq!(loads.load(SeqCst), expected);
    }
}

/// What is cached is used as long as it was to be, and then loaded anew.
async fn a_cached_user_is_loaded_anew_after_its_time(backend: &impl Backend) {
    let (manager, loads) = loading(backend, 7).await;
    let token = log_in(&manager, "al").await;
    let checked = async |ttl: Duration| {
        let user = manager.check_token_or_update_user(&token, ttl).await;
        assert_eq!(user.unwrap().unwrap().detail(), Some(&7));
        loads.load(SeqCst)
    };
    assert_eq!(checked(SHORT).await, 1);
    outlive_short().await;
    assert_eq!(checked(HOUR).await, 2);
    outlive_short().await;
    // A hit does not shorten the time, whatever the caller says.
    assert_eq!(checked(SHORT).await, 2);
    outlive_short().await;
    assert_eq!(checked(SHORT).await, 2);
}

/// A manager without a loader checks tokens, sees what others cached, and says what it cannot do.
async fn without_a_loader_there_is_what_is_cached(backend: &impl Backend) {
    let manager = backend
        .manager_builder()
        .await
        .user_type::<u8>()
        .build()
        .unwrap();
    let token = log_in(&manager, "al").await;
    let user = manager.check_token_or_update_user(&token, None).await;
    let user = user.unwrap().expect("a live token");
    assert_eq!((user.id(), user.detail()), ("al", None));
    let error = manager.add_user("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoLoader);
    assert!(error.to_string().contains("load_user"), "{error}");

    let (elsewhere, _) = loading(backend, 7).await;
    elsewhere.add_user("al", None).await.unwrap();
    assert_eq!(check(&manager, &token).await, Some(7));
    manager.delete_user("al").await.unwrap();
    assert_eq!(check(&manager, &token).await, None);
}

/// A detail that its own type cannot write is a mistake of the programmer, and said to be one.
async fn a_detail_that_cannot_be_written_is_an_error(backend: &impl Backend) {
    #[derive(Clone, Debug, Deserialize)]
    struct Unwritable;
    impl Serialize for Unwritable {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom("no words"))
        }
    }
    let (manager, _) = loading(backend, Unwritable).await;
    let token = log_in(&manager, "al").await;
    let error = manager.check_token_or_update_user(&token, None).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Serialize);
    let error = manager.add_user("al", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialize);
}

/// Durations that cannot be are refused before anything is done.
async fn a_user_ttl_that_cannot_be_is_refused(backend: &impl Backend) {
    let (manager, loads) = loading(backend, 7).await;
    let token = log_in(&manager, "al").await;
    for ttl in [
        Duration::ZERO,
        MAX_TTL + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        let error = manager.check_token_or_update_user(&token, ttl).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        let error = manager.add_user("al", ttl).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(loads.load(SeqCst), 0);
    manager.add_user("al", MAX_TTL).await.unwrap();
    manager
        .add_user("al", Duration::from_nanos(1))
        .await
        .unwrap();
}

/// Other services and languages read and write it: `{"id":…,"detail":…,"v":…}` from here, and any object with
/// an id and a detail from there.
async fn the_value_is_the_documented_json(backend: &impl Server) {
    let (manager, loads) = loading(backend, BTreeMap::from([("n".to_owned(), 1)])).await;
    let token = log_in(&manager, "a{l}").await;
    check(&manager, &token).await;
    let key = "tbs:users:{a%7Bl%7D}";
    let value: String = ask(backend, &["GET", key]).await;
    let nonce = value
        .strip_prefix(r#"{"id":"a{l}","detail":{"n":1},"v":""#)
        .unwrap();
    assert_eq!(nonce.len(), 16 + r#""}"#.len(), "{value}");

    let foreign = r#" { "detail" : {"n": 2}, "more": [], "id" : "a\u007bl}" } "#;
    let _: String = ask(backend, &["SET", key, foreign]).await;
    let detail = check(&manager, &token).await.unwrap();
    assert_eq!(detail["n"], 2);
    assert_eq!(loads.load(SeqCst), 1);
}

/// The key has the time to live that the call, or else the configuration, says; a hit does not change it.
async fn the_key_lives_as_long_as_it_is_told(backend: &impl Server) {
    let builder = backend.manager_builder().await.user_ttl(2 * HOUR);
    let builder = builder.missing_user_ttl(9 * HOUR);
    let manager = built(builder.load_user(async |id: String| {
        let exists = id == "al";
        Ok::<_, Infallible>(exists.then_some(7))
    }));
    let ttl = async || {
        let millis = ask(backend, &["PTTL", "tbs:users:{al}"]).await;
        Duration::from_millis(millis)
    };
    // Nearly all of it must be left, as long as this machine does not need minutes.
    let assert_ttl = async |expected: Duration| {
        let ttl = ttl().await;
        assert!(ttl <= expected && ttl > expected - HOUR / 4, "{ttl:?}");
    };
    let token = log_in(&manager, "al").await;
    check(&manager, &token).await;
    assert_ttl(2 * HOUR).await;
    manager.add_user("al", 3 * HOUR).await.unwrap();
    assert_ttl(3 * HOUR).await;
    manager.add_user("al", None).await.unwrap();
    assert_ttl(2 * HOUR).await;
    manager.add_user("al", MAX_TTL).await.unwrap();
    assert_ttl(MAX_TTL).await;
    manager.delete_user("al").await.unwrap();
    let before = manager.check_token_or_update_user(&token, 5 * HOUR).await;
    before.unwrap().expect("a live token");
    assert_ttl(5 * HOUR).await;
    let hit = manager.check_token_or_update_user(&token, 6 * HOUR).await;
    hit.unwrap().expect("a live token");
    assert_ttl(5 * HOUR).await;
    let users = manager.refresh_users(["al"], 4 * HOUR).await;
    assert_eq!(users.refreshed, ["al"]);
    assert_ttl(4 * HOUR).await;

    let token = log_in(&manager, "nobody").await;
    assert_eq!(check(&manager, &token).await, None);
    let millis: u64 = ask(backend, &["PTTL", "tbs:users:{nobody}"]).await;
    assert!(millis <= 9 * 3_600_000 && millis > 8 * 3_600_000);
}

async fn check<D>(manager: &TokenManager<D>, token: &str) -> Option<D>
where
    D: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let user = manager.check_token_or_update_user(token, None).await;
    let user = user.expect("no error");
    user.and_then(|user| user.detail().cloned())
}

async fn ask<T: FromRedisValue + Debug>(backend: &impl Server, command: &[&str]) -> T {
    let answer = backend.server().cmd(command).await;
    from_redis_value(answer).expect("an answer of this type")
}
