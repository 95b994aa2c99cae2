//! Calls whose caller goes away, or never learns the outcome: the session store and the listener agree all the same.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::yield_now,
    time::{sleep, timeout},
};
use tower_bearer_session::{
    Error, ErrorKind, Event, EventKind, MemoryStore, OnFull, SessionStore, TokenId, TokenManager,
    store::{InterceptedStore, NewSession, Operation, StoreCall, StoreInterceptor},
    test_util::Faults,
};

use crate::stores::{Backend, HOUR, on_every_store};

on_every_store!(
    a_login_whose_caller_goes_away_is_undone,
    a_login_whose_reply_is_lost_is_undone,
    a_logout_whose_caller_goes_away_is_an_event,
);

/// Anything that must happen happens within this time, however busy the machine is.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough to go away before the reply comes, where time is paused.
const SLOW_REPLY: Duration = Duration::from_millis(300);

/// The store has started the session when the caller goes away: the session ends, so that it does not lock the user
/// out, and no login is reported.
async fn a_login_whose_caller_goes_away_is_undone(backend: &impl Backend) {
    let (store, gate, events) = (backend.store().await, Gate::default(), Events::default());
    let manager = events.manager(InterceptedStore::new(store.clone(), gate.clone()));
    gate.hold(Operation::Create);
    let login = {
        let manager = manager.clone();
        tokio::spawn(async move { manager.set_token("al", HOUR).await })
    };
    eventually("the session", async || gate.held() == 1).await;
    assert_eq!(sessions(&store).await, 1);
    login.abort();
    assert!(login.await.unwrap_err().is_cancelled());
    gate.release();
    eventually("its end", async || sessions(&store).await == 0).await;
    let token = manager.set_token("al", HOUR).await.unwrap();
    assert_eq!(events.take(), [format!("in {}", token.id())]);
}

/// The caller gets the fault and no token: the session that the store may have started ends.
async fn a_login_whose_reply_is_lost_is_undone(backend: &impl Backend) {
    for kind in [
        ErrorKind::Timeout,
        ErrorKind::Unavailable,
        ErrorKind::Store,
        ErrorKind::Unconfirmed,
    ] {
        let (store, faults, events) = (backend.store().await, Faults::new(), Events::default());
        let manager = events.manager(faults.wrap(store.clone()));
        faults.on(Operation::Create).lose_next_replies(1, kind);
        let error = manager.set_token("al", HOUR).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        eventually("its end", async || sessions(&store).await == 0).await;
        let token = manager.set_token("al", HOUR).await.unwrap();
        assert!(events.take().ends_with(&[format!("in {}", token.id())]));
        assert!(manager.delete_token(token.expose_secret()).await.unwrap());
    }
}

/// The store has ended or prolonged the sessions when the caller goes away: the listener learns of it, once.
async fn a_logout_whose_caller_goes_away_is_an_event(backend: &impl Backend) {
    let (store, gate, events) = (backend.store().await, Gate::default(), Events::default());
    let manager = events.manager(InterceptedStore::new(store.clone(), gate.clone()));
    for (operation, what) in [
        (Operation::Delete, "out"),
        (Operation::Delete, "out by handle"),
        (Operation::DeleteAll, "all out"),
        (Operation::DeleteAll, "others out"),
        (Operation::Update, "refreshed"),
    ] {
        let token = manager.set_token("al", HOUR).await.unwrap();
        events.take();
        gate.hold(operation);
        let (text, id) = (token.expose_secret().to_owned(), *token.id());
        let call = {
            let manager = manager.clone();
            tokio::spawn(async move {
                match what {
                    "out" => manager.delete_token(&text).await.map(drop),
                    "out by handle" => manager.delete_user_token("al", &id).await.map(drop),
                    "all out" => manager.delete_user_tokens("al").await.map(drop),
                    "others out" => manager.delete_other_user_tokens("al", &id).await.map(drop),
                    _ => manager.refresh_token(&text, 2 * HOUR).await.map(drop),
                }
            })
        };
        eventually("the outcome", async || gate.held() == 1).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert!(events.heard().is_empty());
        gate.release();
        let expected = match what {
            "out" | "out by handle" => format!("out {id}"),
            "all out" => "all out but None".to_owned(),
            "others out" => format!("all out but {:?}", Some(id)),
            _ => format!("refreshed {id}"),
        };
        eventually(what, async || events.heard() == [expected.clone()]).await;
        events.take();
        store.delete_all("al", None).await.unwrap();
    }
}

/// The undo of a login does not depend on one call.
#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_tried_again() {
    let (store, faults, events) = (MemoryStore::new(), Faults::new(), Events::default());
    let manager = events.manager(faults.wrap(store.clone()));
    faults
        .on(Operation::Create)
        .lose_next_replies(1, ErrorKind::Timeout);
    faults
        .on(Operation::Delete)
        .fail_next(2, ErrorKind::Unavailable);
    manager.set_token("al", HOUR).await.unwrap_err();
    eventually("its end", async || sessions(&store).await == 0).await;
}

/// An outage that lasts does not leave work that never ends.
#[tokio::test(start_paused = true)]
async fn an_undo_is_given_up_after_a_few_tries() {
    let (store, faults, events) = (MemoryStore::new(), Faults::new(), Events::default());
    let manager = events.manager(faults.wrap(store.clone()));
    faults.fail(ErrorKind::Unavailable);
    manager.set_token("al", HOUR).await.unwrap_err();
    sleep(HOUR).await;
    let tries = faults.on(Operation::Delete).calls();
    assert!((2..=8).contains(&tries), "{tries} tries");
}

/// A refusal leaves nothing behind, so nothing is undone.
#[tokio::test(start_paused = true)]
async fn a_refused_login_is_not_undone() {
    let (store, faults, events) = (MemoryStore::new(), Faults::new(), Events::default());
    let manager = events.manager(faults.wrap(store.clone()));
    let token = manager.set_token("al", HOUR).await.unwrap();
    let error = manager.set_token("al", HOUR).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionLimit);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(faults.on(Operation::Delete).calls(), 0);
    assert!(
        manager
            .check_token(token.expose_secret())
            .await
            .unwrap()
            .is_some()
    );
}

/// A login that the store executes after it was given up is undone, too.
#[tokio::test(start_paused = true)]
async fn a_login_that_arrives_late_is_undone() {
    let (store, faults, events) = (MemoryStore::new(), Faults::new(), Events::default());
    let manager = events.manager(faults.wrap(store.clone()));
    faults
        .on(Operation::Create)
        .fail_next(1, ErrorKind::Timeout);
    manager.set_token("al", HOUR).await.unwrap_err();
    let id = events.failed_login.lock().unwrap().expect("a failed login");
    eventually("an undo", async || faults.on(Operation::Delete).calls() > 0).await;
    let late = NewSession::new(HOUR);
    store.create("al", &id, &late, None).await.unwrap();
    eventually("its end", async || sessions(&store).await == 0).await;
}

/// Logins that timed out do not multiply the calls of a store that answers again.
#[tokio::test(start_paused = true)]
async fn an_undo_that_finds_nothing_twice_is_done() {
    let (store, faults, events) = (MemoryStore::new(), Faults::new(), Events::default());
    let manager = events.manager(faults.wrap(store));
    faults
        .on(Operation::Create)
        .fail_next(1, ErrorKind::Timeout);
    manager.set_token("al", HOUR).await.unwrap_err();
    sleep(HOUR).await;
    assert_eq!(faults.on(Operation::Delete).calls(), 2);
}

/// Sessions that a login evicted have ended, whatever becomes of the login.
#[tokio::test(start_paused = true)]
async fn what_an_undone_login_evicted_is_reported() {
    let (store, faults, events) = (MemoryStore::new(), Faults::new(), Events::default());
    let listener = events.clone();
    let manager: TokenManager = TokenManager::builder(faults.wrap(store.clone()))
        .session_limit(1, OnFull::EvictOldest)
        .on_event(move |event| listener.hear(event))
        .build()
        .unwrap();
    let first = manager.set_token("al", HOUR).await.unwrap();
    events.take();
    faults.on(Operation::Create).delay_replies(SLOW_REPLY);
    timeout(SLOW_REPLY / 2, manager.set_token("al", HOUR))
        .await
        .unwrap_err();
    eventually("its end", async || sessions(&store).await == 0).await;
    assert_eq!(events.take(), [format!("evicted {}", first.id())]);
}

/// Outside of a tokio runtime a store that needs none works: there is no task to see the call through, which is no
/// reason to panic.
#[test]
fn without_a_runtime_logins_and_logouts_work() {
    let (faults, events) = (Faults::new(), Events::default());
    let manager = events.manager(faults.wrap(MemoryStore::new()));
    let token = now(manager.set_token("al", HOUR)).unwrap();
    assert!(now(manager.refresh_token(token.expose_secret(), HOUR)).unwrap());
    assert!(now(manager.delete_token(token.expose_secret())).unwrap());
    assert_eq!(now(manager.delete_user_tokens("al")).unwrap(), 0);
    assert_eq!(events.take().len(), 4);
    faults
        .on(Operation::Create)
        .lose_next_replies(1, ErrorKind::Timeout);
    now(manager.set_token("al", HOUR)).unwrap_err();
}

fn now<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut call = pin!(call);
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("the call waits"),
    }
}

/// What a listener hears, without faults.
#[derive(Clone, Default)]
struct Events {
    heard: Arc<Mutex<Vec<String>>>,
    /// The session of the login that failed last.
    failed_login: Arc<Mutex<Option<TokenId>>>,
}

impl Events {
    /// A manager that rejects a second session and tells these events.
    fn manager(&self, store: impl SessionStore) -> TokenManager {
        let listener = self.clone();
        TokenManager::builder(store)
            .session_limit(1, OnFull::Reject)
            .on_event(move |event| listener.hear(event))
            .build()
            .unwrap()
    }

    fn hear(&self, event: &Event<'_>) {
        let heard = match event.kind() {
            EventKind::LoggedIn { token_id, .. } => format!("in {token_id}"),
            EventKind::Evicted { token_id, .. } => format!("evicted {token_id}"),
            EventKind::Refreshed { token_id, .. } => format!("refreshed {token_id}"),
            EventKind::LoggedOut { token_id, .. } => format!("out {token_id}"),
            EventKind::LoggedOutAll { kept, .. } => format!("all out but {kept:?}"),
            EventKind::Failed {
                operation,
                token_id,
                ..
            } => {
                if operation == "create" {
                    *self.failed_login.lock().unwrap() = token_id.copied();
                }
                return;
            }
            _ => return,
        };
        self.heard.lock().unwrap().push(heard);
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

/// Holds the replies to one operation back: the store has done what it was asked for, and the caller waits.
#[derive(Clone, Default)]
struct Gate(Arc<watch::Sender<Held>>);

#[derive(Default)]
struct Held {
    operation: Option<Operation>,
    replies: usize,
}

impl Gate {
    fn hold(&self, operation: Operation) {
        self.0.send_replace(Held {
            operation: Some(operation),
            replies: 0,
        });
    }

    fn release(&self) {
        self.0.send_replace(Held::default());
    }

    /// How many replies are held back.
    fn held(&self) -> usize {
        self.0.borrow().replies
    }
}

impl StoreInterceptor for Gate {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let outcome = answer.await;
        let is_held = |held: &Held| held.operation == Some(call.operation);
        self.0.send_if_modified(|held| {
            held.replies += usize::from(is_held(held));
            is_held(held)
        });
        let mut gate = self.0.subscribe();
        let _open = gate.wait_for(|held| !is_held(held)).await.is_ok();
        outcome
    }
}

/// How many sessions `al` has.
async fn sessions(store: &impl SessionStore) -> usize {
    store.list("al").await.unwrap().len()
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(1)).await;
            yield_now().await;
        }
    };
    timeout(LONG_TIMEOUT, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come"));
}
