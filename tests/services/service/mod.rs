//! The layer as a tower service: readiness, verdicts, headers, bounds. No server, no network.

mod bounds;
mod caching;
mod cookies;
mod defaults;
mod events;
mod failures;
mod guards;
mod headers;
mod hooks;
mod last_seen;
mod nested;
mod observed;
mod readiness;
mod several_sources;
mod sliding;
mod sources;
mod unanswered;
mod verdicts;
mod websockets;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tower_bearer_session::{
    ErrorKind, MemoryStore, SessionLayer, Token, TokenManager,
    store::Operation,
    test_util::{Faults, FaultyStore},
};

use crate::stores::DAY;

/// An application's own type, which can do nothing but what the crate asks of it.
#[derive(Serialize, Deserialize)]
struct Profile {
    name: String,
}

/// Watches a store: counts the calls, and treats them as it is told.
#[derive(Clone, Default)]
struct Spy {
    sessions: MemoryStore,
    faults: Faults,
    /// How many calls, and of them refreshes, were asked for before.
    seen: Arc<[AtomicU64; 2]>,
}

#[derive(Clone, Copy)]
enum Mood {
    Works,
    Fails(ErrorKind),
    Hangs,
}

impl Spy {
    /// How many calls there were since the last time.
    fn calls(&self) -> u64 {
        let calls = self.faults.calls();
        calls - self.seen[0].swap(calls, Ordering::Relaxed)
    }

    /// The same for refreshes.
    fn refreshes(&self) -> u64 {
        let refreshes = self.faults.on(Operation::Update).calls();
        refreshes - self.seen[1].swap(refreshes, Ordering::Relaxed)
    }

    fn set(&self, mood: Mood) {
        self.faults.heal();
        match mood {
            Mood::Works => {}
            Mood::Fails(kind) => self.faults.fail(kind),
            // Longer than any test.
            Mood::Hangs => self.faults.delay(365 * DAY),
        }
    }

    /// A store under its eyes.
    fn store(&self) -> FaultyStore<MemoryStore> {
        self.faults.wrap(self.sessions.clone())
    }
}

/// A manager on a spy, whose loader knows everybody but `nobody`, and fails for `broken`.
fn manager(spy: &Spy) -> TokenManager<Profile> {
    TokenManager::builder(spy.store())
        .load_user(async |id: String| match &*id {
            "nobody" => Ok(None),
            "broken" => Err("the database is down"),
            _ => Ok(Some(Profile {
                name: id.to_uppercase(),
            })),
        })
        .build()
        .expect("a valid configuration")
}

/// A live token, and the layer in both modes: required, then optional.
async fn logged_in(spy: &Spy, user_id: &str) -> (Token, [SessionLayer<Profile>; 2]) {
    let manager = manager(spy);
    let token = manager.set_token(user_id, None).await.expect("a login");
    spy.calls();
    let required = SessionLayer::new(manager);
    let optional = required.clone().optional();
    (token, [required, optional])
}

/// A request with these `Authorization` headers.
fn request<V: AsRef<[u8]>>(authorization: impl IntoIterator<Item = V>) -> Request<()> {
    let mut request = Request::new(());
    for value in authorization {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header");
        request.headers_mut().append(AUTHORIZATION, value);
    }
    request
}

fn bearer(token: &Token) -> String {
    format!("Bearer {}", token.expose_secret())
}

/// Polls once, with a waker that does nothing.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
