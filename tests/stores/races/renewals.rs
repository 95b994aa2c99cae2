//! Sliding renewals in the background against what the handler does to its own session meanwhile.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, Session, SessionLayer, Token, TokenManager,
    store::{InterceptedStore, Operation, StoreCall, StoreInterceptor},
};

use crate::stores::{Backend, DAY, HOUR, on_every_store};

on_every_store!(
    a_refresh_by_the_handler_stands,
    a_logout_by_the_handler_stands,
);

const ROUNDS: u64 = 100;
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The handler's refresh and the renewal are in flight at the same time, a hundred times: the session lives as long as
/// the handler said, shorter or longer.
async fn a_refresh_by_the_handler_stands(backend: &impl Backend) {
    let sliding = Sliding::start(backend).await;
    for round in 0..ROUNDS {
        let ttl = if round % 2 == 0 { HOUR } else { 8 * DAY };
        let token = sliding.due_token().await;
        let handler = async |session: Session| assert!(session.refresh(ttl).await.unwrap());
        sliding.request(&token, handler).await;
        // That of the handler and that of the layer.
        sliding.updates(2 * (round + 1)).await;
        let remaining = sliding.remaining(&token).await.expect("a live session");
        assert!(remaining <= ttl, "round {round}: {remaining:?} for {ttl:?}");
        assert!(remaining > ttl - HOUR / 2, "round {round}: {remaining:?}");
    }
}

/// The same for a logout.
async fn a_logout_by_the_handler_stands(backend: &impl Backend) {
    let sliding = Sliding::start(backend).await;
    for round in 0..ROUNDS {
        let token = sliding.due_token().await;
        let handler = async |session: Session| assert!(session.log_out().await.unwrap());
        sliding.request(&token, handler).await;
        sliding.updates(round + 1).await;
        assert_eq!(sliding.remaining(&token).await, None, "round {round}");
    }
}

/// A manager, a layer that renews sessions that are a moment old, and the number of updates that the store has
/// completed.
struct Sliding {
    manager: TokenManager,
    layer: SessionLayer,
    completed: Arc<AtomicU64>,
}

impl Sliding {
    async fn start(backend: &impl Backend) -> Self {
        let completed = Arc::<AtomicU64>::default();
        let store = InterceptedStore::new(backend.store().await, Updates(Arc::clone(&completed)));
        let manager: TokenManager = TokenManager::new(store);
        let layer = SessionLayer::new(manager.clone()).refresh_below(WEEK - MILLISECOND);
        Self {
            manager,
            layer,
            completed,
        }
    }

    /// A token that the layer renews at its next request.
    async fn due_token(&self) -> Token {
        let token = self.manager.set_token("al", WEEK).await.unwrap();
        sleep(5 * MILLISECOND).await;
        token
    }

    async fn request(&self, token: &Token, handler: impl AsyncFn(Session)) {
        let handler = &handler;
        let inner = service_fn(move |request: Request<()>| async move {
            let session: &Session = request.extensions().get().expect("a session");
            handler(session.clone()).await;
            Ok::<_, Infallible>(Response::new(()))
        });
        let bearer = format!("Bearer {}", token.expose_secret());
        let request = Request::builder().header(AUTHORIZATION, bearer).body(());
        let service = self.layer.layer(inner);
        let response = service.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
    }

    /// Waits until so many updates have come to their end.
    async fn updates(&self, count: u64) {
        let waiting = async {
            while self.completed.load(SeqCst) < count {
                sleep(MILLISECOND).await;
            }
        };
        let waiting = timeout(Duration::from_secs(30), waiting);
        waiting.await.expect("all updates");
    }

    async fn remaining(&self, token: &Token) -> Option<Duration> {
        let user = self.manager.check_token(token.expose_secret()).await;
        user.unwrap()?.token_remaining()
    }
}

/// Counts the updates that have come to their end.
struct Updates(Arc<AtomicU64>);

impl StoreInterceptor for Updates {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let outcome = answer.await;
        if call.operation == Operation::Update {
            self.0.fetch_add(1, SeqCst);
        }
        outcome
    }
}
