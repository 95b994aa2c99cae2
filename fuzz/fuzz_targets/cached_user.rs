//! Cached users, as any program may have left them in the store.
//!
//! - A value is this user if and only if it is a JSON object with this user's id and a detail. That is the user's
//!   detail then.
//! - A value that begins with `-` means that there is no such user; with any other value the user is loaded.
//! - A second check has the same result as the first one, which may be remembered.
//! - No value makes a check fail.

#![no_main]

use std::{
    convert::Infallible,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tower_bearer_session::{
    MemoryStore, SessionStore, TokenManager,
    store::{MAX_TTL, NewSession, PutMode},
};
use tower_bearer_session_fuzz::{ALICE, AlwaysLive, block_on};

static LOADS: AtomicUsize = AtomicUsize::new(0);

struct Users<D: 'static> {
    store: MemoryStore,
    manager: TokenManager<D>,
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Users<D> {
    /// A manager whose store has a session of Alice, and whose loader always finds this detail.
    fn new(loaded: D) -> Self {
        let store = MemoryStore::new();
        let manager = TokenManager::builder(store.clone()).load_user(move |_: String| {
            LOADS.fetch_add(1, Ordering::Relaxed);
            let loaded = loaded.clone();
            async move { Ok::<_, Infallible>(Some(loaded)) }
        });
        block_on(async {
            let parser = TokenManager::new(AlwaysLive);
            let user = parser
                .check_token(ALICE)
                .await
                .expect("no fault")
                .expect("a user");
            let id = user.token_id().expect("a token id");
            let created = store
                .create("alice", id, &NewSession::new(MAX_TTL), None)
                .await;
            created.expect("a session");
        });
        Self {
            store,
            manager: manager.build().expect("a manager"),
        }
    }

    fn put(&self, value: &[u8]) {
        let put = self
            .store
            .put_user("alice", value, MAX_TTL, PutMode::Replace);
        assert!(block_on(put).expect("no fault"));
    }

    /// The detail, and whether it was loaded; `None` if there is no such user.
    fn check(&self) -> Option<(D, bool)> {
        let before = LOADS.load(Ordering::Relaxed);
        let user =
            block_on(self.manager.check_token_or_update_user(ALICE, None)).expect("no fault")?;
        assert_eq!(user.id(), "alice");
        let loads = LOADS.load(Ordering::Relaxed) - before;
        assert!(loads <= 1);
        Some((user.detail().expect("a detail").clone(), loads == 1))
    }
}

static ANY: LazyLock<Users<Value>> = LazyLock::new(|| Users::new(Value::from("loaded")));
static OPTIONAL: LazyLock<Users<Option<u8>>> = LazyLock::new(|| Users::new(Some(42)));

/// The detail in a value that is Alice.
fn detail(value: &[u8]) -> Option<Value> {
    if !value.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    // Of two members with one name, readers differ in which one counts; the target skips them.
    let value: Value = serde_json::from_slice(value).ok()?;
    (value["id"] == "alice").then(|| value.get("detail").cloned())?
}

fuzz_target!(|value: &[u8]| {
    let text = String::from_utf8_lossy(value);
    if text.matches("id").count() > 1 || text.matches("detail").count() > 1 || text.contains('\\') {
        return;
    }
    let detail = detail(value);
    ANY.put(value);
    let first = ANY.check();
    match (value.first(), detail.clone()) {
        (Some(b'-'), _) => assert_eq!(first, None),
        (_, Some(detail)) => {
            assert_eq!(first, Some((detail.clone(), false)));
            assert_eq!(ANY.check(), Some((detail, false)));
        }
        (_, None) => {
            assert_eq!(first, Some((Value::from("loaded"), true)));
            assert_eq!(ANY.check(), Some((Value::from("loaded"), false)));
        }
    }

    OPTIONAL.put(value);
    let checked = OPTIONAL.check();
    let detail: Option<Option<u8>> = detail.and_then(|detail| serde_json::from_value(detail).ok());
    match (value.first(), detail) {
        (Some(b'-'), _) => assert_eq!(checked, None),
        (_, Some(detail)) => assert_eq!(checked, Some((detail, false))),
        // A detail that is missing is as good as `null`.
        (_, None) => assert!(matches!(checked, Some((Some(42), true) | (None, false)))),
    }
});
