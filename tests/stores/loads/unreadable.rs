//! Details that cannot be cached: each is an error that says so, and not a load at every request.

use std::{
    collections::HashMap, convert::Infallible, error::Error as _, sync::atomic::Ordering::SeqCst,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, SessionStore, TokenManager, store::MAX_VALUE_LEN,
};

use super::{built, loading, log_in};
use crate::stores::{Backend, on_every_store};

on_every_store!(
    a_detail_that_its_json_cannot_rebuild_is_an_error,
    a_detail_that_is_too_large_is_an_error,
    a_large_detail_of_another_process_is_used,
);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Skipped {
    name: String,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "it is a mistake")]
    password: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ratio {
    ratio: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Big { number: u128 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Renamed {
    #[serde(rename(serialize = "Name", deserialize = "name"))]
    name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Parsed {
    #[serde(serialize_with = "as_text")]
    secret: u64,
}

fn as_text<S: serde::Serializer>(secret: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("secret {secret}"))
}

/// A type whose JSON it cannot read itself is a mistake of the programmer, and said to be one, the first time. The text
/// names what serde says, but nothing of the user.
async fn a_detail_that_its_json_cannot_rebuild_is_an_error(backend: &impl Backend) {
    let skipped = Skipped {
        name: "Al".into(),
        password: "hunter2".into(),
    };
    fails(backend, skipped, "missing field `password`").await;
    fails(backend, Ratio { ratio: f64::NAN }, "null").await;
    let number = u128::MAX;
    fails(backend, Untagged::Big { number }, "").await;
    let name = "hunter2".into();
    fails(backend, Renamed { name }, "missing field `name`").await;
    fails(backend, Parsed { secret: 4711 }, "invalid type").await;
    let keys = HashMap::from([(vec![1], "hunter2".to_owned())]);
    fails(backend, keys, "cannot be written").await;
}

/// Nobody's details may fill the store, nor be sent with every check, forged ones included.
async fn a_detail_that_is_too_large_is_an_error(backend: &impl Backend) {
    let text = fails(backend, "x".repeat(64 * 1024), "65536").await;
    assert!(text.contains("max_user_size"), "{text}");
    let (manager, _) = loading(backend, "x".repeat(60 * 1024)).await;
    let token = log_in(&manager, "large").await;
    let user = manager.check_token_or_update_user(&token, None).await;
    assert!(user.unwrap().is_some());
    let store = backend.store().await;
    assert!(store.get_user("large").await.unwrap().is_some());

    let builder = backend.manager_builder().await.max_user_size(100);
    let builder = builder.load_user(async |id: String| Ok::<_, Infallible>(Some(id.repeat(50))));
    let small = built(builder);
    assert!(small.add_user("a", None).await.unwrap().is_some());
    let error = small.add_user("abc", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialize);
    assert!(error.to_string().contains("100"), "{error}");
}

/// The bound is for what is written: what a process with a higher one has cached is there already.
async fn a_large_detail_of_another_process_is_used(backend: &impl Backend) {
    let builder = backend.manager_builder().await.max_user_size(1 << 20);
    let builder = builder.load_user(async |_| Ok::<_, Infallible>(Some("x".repeat(100 * 1024))));
    let elsewhere = built(builder);
    elsewhere.add_user("al", None).await.unwrap();
    let (manager, loads) = loading(backend, "small".to_owned()).await;
    let token = log_in(&manager, "al").await;
    let user = manager.check_token_or_update_user(&token, None).await;
    let user = user.unwrap().expect("a live token");
    assert_eq!(user.detail().map(String::len), Some(100 * 1024));
    assert_eq!(loads.load(SeqCst), 0);
}

/// A bound that no user fits in cannot be meant.
#[test]
fn a_bound_of_nothing_is_refused() {
    let builder = || TokenManager::builder(MemoryStore::new());
    for builder in [
        builder().max_user_size(0),
        builder().max_concurrent_loads(0),
    ] {
        assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::Config);
    }
}

/// Stores refuse such values, and each check would load its user anew.
#[test]
fn a_bound_above_that_of_the_stores_is_refused() {
    let build = |bytes| {
        let builder = TokenManager::builder(MemoryStore::new());
        builder.max_user_size(bytes).build().map(drop)
    };
    build(MAX_VALUE_LEN).unwrap();
    for bytes in [MAX_VALUE_LEN + 1, usize::MAX] {
        let error = build(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("max_user_size"), "{error}");
    }
}

/// Checks and `add_user` of a user with this detail fail, and nothing is cached; returns the text of the error.
async fn fails<D>(backend: &impl Backend, detail: D, reason: &str) -> String
where
    D: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (manager, loads) = loading(backend, detail).await;
    let token = log_in(&manager, "al").await;
    manager.delete_user("al").await.unwrap();
    let check = manager.check_token_or_update_user(&token, None).await;
    let add = manager.add_user("al", None).await;
    let refresh = manager.refresh_users(["al"], None).await.failed.remove(0).1;
    let mut text = String::new();
    for error in [
        check.map(drop).unwrap_err(),
        add.map(drop).unwrap_err(),
        refresh,
    ] {
        assert_eq!(error.kind(), ErrorKind::Serialize, "{error:?}");
        text = shown(&error);
        assert!(text.contains(reason), "{text}");
        for secret in ["hunter2", "4711"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(loads.load(SeqCst), 3);
    let cached = backend.store().await.get_user("al").await.unwrap();
    assert!(!cached.is_some_and(|value| value.starts_with(b"{")));
    text
}

/// The error and its sources.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
