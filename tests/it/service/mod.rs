//! The layer as a tower service: readiness, verdicts, headers, bounds. No server, no network.

mod bounds;
mod headers;
mod hooks;
mod nested;
mod observed;
mod readiness;
mod sliding;
mod sources;
mod verdicts;

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tower_bearer_session::{
    Error, ErrorKind, MemoryStore, SessionLayer, SessionStore, Token, TokenId, TokenManager,
    store::{Checked, Created, NewSession, PutMode, SessionLimit, SessionRecord},
};

/// An application's own type, which can do nothing but what the crate asks of it.
#[derive(Serialize, Deserialize)]
struct Profile {
    name: String,
}

/// A store as a user of the crate would wrap one: counts the calls, and treats them as it is told.
#[derive(Clone, Default)]
struct Spy {
    sessions: MemoryStore,
    calls: Arc<AtomicUsize>,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Clone, Copy, Default)]
enum Mood {
    #[default]
    Works,
    Fails(ErrorKind),
    Hangs,
}

impl Spy {
    /// How many calls there were since the last time.
    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    async fn enter(&self) -> Result<&MemoryStore, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            Mood::Works => Ok(&self.sessions),
            Mood::Fails(kind) => Err(Error::new(kind, "the spy was told to fail")),
            Mood::Hangs => pending().await,
        }
    }
}

impl SessionStore for Spy {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let store = self.enter().await?;
        store.create(user_id, token_id, new, limit).await
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        self.enter().await?.check(user_id, token_id).await
    }

    async fn refresh(
        &self,
        user_id: &str,
        token_id: &TokenId,
        ttl: Duration,
    ) -> Result<bool, Error> {
        self.enter().await?.refresh(user_id, token_id, ttl).await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        self.enter().await?.delete(user_id, token_id).await
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        self.enter().await?.delete_all(user_id, except).await
    }

    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        self.enter().await?.list(user_id).await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        self.enter().await?.get_user(user_id).await
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let store = self.enter().await?;
        store.put_user(user_id, value, ttl, mode).await
    }
}

/// A manager on a spy, whose loader knows everybody but `nobody`, and fails for `broken`.
fn manager(spy: &Spy) -> TokenManager<Profile> {
    TokenManager::builder(spy.clone())
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
