//! Failures of the store and of the loader are events: each once, whoever causes it, and whoever gets the error.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    task::yield_now,
    time::{advance, sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, Event, EventKind, OnFull, Session, SessionLayer, Token, TokenManager,
    TokenManagerBuilder, store::Operation,
};

use super::{Mood, Spy, bearer, request};
use crate::stores::MySql;

const MINUTE: Duration = Duration::from_secs(60);
const KINDS: [ErrorKind; 4] = [
    ErrorKind::Timeout,
    ErrorKind::Unavailable,
    ErrorKind::Store,
    // Such as from a store whose tables are missing.
    ErrorKind::Config,
];

/// Every call of the store that fails is one event, with the user and the session that it was about, if any.
#[tokio::test(start_paused = true)]
async fn every_store_call_that_fails_is_one_event() {
    let (spy, failures) = (Spy::default(), Failures::default());
    let manager = failures.manager(&spy);
    let token = manager.set_token("al", None).await.unwrap();
    let (text, id) = (token.expose_secret(), *token.id());
    manager.add_user("al", None).await.unwrap();
    let session = format!("al {id}");
    for kind in KINDS {
        for (operation, of, calls) in [
            (Operation::Check, &*session, &["check", "load", "layer"][..]),
            (Operation::Update, &session, &["refresh"]),
            (Operation::Delete, &session, &["delete", "delete by handle"]),
            (Operation::DeleteAll, "al", &["delete_all", "delete_others"]),
            (Operation::List, "al", &["list"]),
            (Operation::PutUser, "al", &["delete_user"]),
            (Operation::GetUser, "al", &["add_user"]),
            (Operation::Ping, "-", &["ping"]),
        ] {
            for call in calls {
                spy.faults.on(operation).fail_next(1, kind);
                let failed = match *call {
                    "check" => manager.check_token(text).await.map(drop),
                    "load" => {
                        let checking = manager.check_token_or_update_user(text, None);
                        checking.await.map(drop)
                    }
                    "layer" => {
                        let status = status(&manager, &token).await;
                        assert!(status >= 500, "{status}");
                        Err(Error::new(kind, "the layer's"))
                    }
                    "refresh" => manager.refresh_token(text, None).await.map(drop),
                    "delete" => manager.delete_token(text).await.map(drop),
                    "delete by handle" => manager.delete_user_token("al", &id).await.map(drop),
                    "delete_all" => manager.delete_user_tokens("al").await.map(drop),
                    "delete_others" => {
                        let deleting = manager.delete_other_user_tokens("al", &id);
                        deleting.await.map(drop)
                    }
                    "list" => manager.list_user_tokens("al").await.map(drop),
                    "delete_user" => manager.delete_user("al").await,
                    "add_user" => manager.add_user("al", None).await.map(drop),
                    _ => manager.ping().await,
                };
                assert_eq!(failed.unwrap_err().kind(), kind, "{call}");
                let expected = format!("{operation} {of} {kind:?}");
                assert_eq!(failures.take(), [expected], "{call}");
            }
        }
        spy.faults.on(Operation::Create).fail_next(1, kind);
        manager.set_token("bo", None).await.unwrap_err();
        let failed = failures.take();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].starts_with("create bo ") && failed[0].ends_with(&format!("{kind:?}")));
    }
}

/// A refusal is no failure, and neither is a token that is not live.
#[tokio::test(start_paused = true)]
async fn refusals_are_no_failures() {
    let (spy, failures) = (Spy::default(), Failures::default());
    let manager = failures.configured(&spy, |builder| builder.session_limit(1, OnFull::Reject));
    let token = manager.set_token("al", None).await.unwrap();
    let full = manager.set_token("al", None).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::SessionLimit);
    manager.delete_token(token.expose_secret()).await.unwrap();
    assert_eq!(status(&manager, &token).await, 401);
    manager.check_token("x").await.unwrap();
    manager.set_token("", None).await.unwrap_err();
    assert!(failures.take().is_empty());
}

/// A load that fails has failed once, however many wait for it.
#[tokio::test(start_paused = true)]
async fn a_failed_load_is_one_event() {
    let (spy, failures) = (Spy::default(), Failures::default());
    let manager = failures.manager(&spy);
    for (user, kind) in [
        ("broken", ErrorKind::LoadUser),
        ("panics", ErrorKind::LoadUser),
        ("hangs", ErrorKind::LoadUser),
        ("large", ErrorKind::Serialize),
    ] {
        let token = manager.set_token(user, None).await.unwrap();
        let checks: Vec<_> = (0..10)
            .map(|_| {
                let (manager, token) = (manager.clone(), token.clone());
                tokio::spawn(async move {
                    let token = token.expose_secret();
                    manager.check_token_or_update_user(token, None).await
                })
            })
            .collect();
        for check in checks {
            assert_eq!(check.await.unwrap().unwrap_err().kind(), kind);
        }
        assert_eq!(failures.take(), [format!("load_user {user} {kind:?}")]);
        manager.add_user(user, None).await.unwrap_err();
        assert_eq!(failures.take(), [format!("load_user {user} {kind:?}")]);
    }
}

/// A store that cannot keep users lets the load through: its failures are seen all the same.
#[tokio::test(start_paused = true)]
async fn a_cache_that_fails_is_an_event_although_nobody_gets_the_error() {
    let (spy, failures) = (Spy::default(), Failures::default());
    let manager = failures.manager(&spy);
    let token = manager.set_token("al", None).await.unwrap();
    for operation in [Operation::GetUser, Operation::PutUser] {
        spy.faults.on(operation).fail(ErrorKind::Store);
        assert_eq!(status(&manager, &token).await, 200);
        assert_eq!(failures.take(), [format!("{operation} al Store")]);
        spy.faults.heal();
    }
}

/// Work that nobody waits for: renewals that fail or hang, polls for the end of a session, undone logins.
#[tokio::test(start_paused = true)]
async fn failures_in_the_background_are_events() {
    let (spy, failures) = (Spy::default(), Failures::default());
    let manager = failures.manager(&spy);
    let token = manager.set_token("al", MINUTE).await.unwrap();
    manager.add_user("al", None).await.unwrap();
    let session = format!("al {}", token.id());
    advance(MINUTE / 2).await;
    spy.faults
        .on(Operation::Update)
        .fail_next(1, ErrorKind::Unavailable);
    let renewing = SessionLayer::new(manager.clone()).refresh_below(MINUTE - MINUTE / 4);
    assert_eq!(through(&renewing, &token).await.0, 200);
    for _ in 0..10 {
        yield_now().await;
    }
    assert_eq!(failures.take(), [format!("update {session} Unavailable")]);

    spy.faults.on(Operation::Update).delay(MINUTE);
    assert_eq!(through(&renewing, &token).await.0, 200);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(failures.take(), [format!("update {session} Timeout")]);
    spy.faults.heal();

    let (_, waiting) = through(&SessionLayer::new(manager.clone()), &token).await;
    let waiting = waiting.expect("a session");
    spy.faults
        .on(Operation::Check)
        .fail_next(2, ErrorKind::Timeout);
    timeout(Duration::from_secs(13), waiting.revoked())
        .await
        .unwrap_err();
    assert_eq!(
        failures.take(),
        [
            format!("check {session} Timeout"),
            format!("check {session} Timeout")
        ]
    );

    spy.set(Mood::Fails(ErrorKind::Timeout));
    manager.set_token("bo", None).await.unwrap_err();
    sleep(MINUTE).await;
    let failed = failures.take();
    assert!(failed[0].starts_with("create bo "), "{failed:?}");
    assert!(failed.len() > 1 && failed[1..].iter().all(|one| one.starts_with("delete bo ")));
}

/// Tables that nobody has made are no silent 500.
#[tokio::test]
async fn missing_tables_are_an_event() {
    let tables = MySql::without_tables().await;
    let failures = Failures::default();
    let store = tables.builder().connect().await.unwrap();
    let manager = failures.built(TokenManager::builder(store), |builder| builder);
    let other = TokenManager::new(Spy::default().store());
    let token = other.set_token("al", None).await.unwrap();
    assert_eq!(status(&manager, &token).await, 500);
    assert_eq!(failures.take(), [format!("check al {} Config", token.id())]);
    manager.set_token("al", None).await.unwrap_err();
    let failed = failures.take();
    assert!(
        failed.len() == 1 && failed[0].ends_with("Config"),
        "{failed:?}"
    );
}

/// The status of a request with this token.
async fn status(manager: &TokenManager<String>, token: &Token) -> u16 {
    through(&SessionLayer::new(manager.clone()), token).await.0
}

async fn through(layer: &SessionLayer<String>, token: &Token) -> (u16, Option<Session<String>>) {
    let inner = service_fn(async |request: Request<()>| {
        let session = request.extensions().get::<Session<String>>().cloned();
        Ok::<_, Infallible>(Response::new(session))
    });
    let service = layer.layer(inner);
    let response = service.oneshot(request([bearer(token)])).await.unwrap();
    (response.status().as_u16(), response.into_body())
}

/// The failures that a manager has reported.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Vec<String>>>);

impl Failures {
    fn manager(&self, spy: &Spy) -> TokenManager<String> {
        self.configured(spy, |builder| builder)
    }

    fn configured(
        &self,
        spy: &Spy,
        configure: impl FnOnce(TokenManagerBuilder<String>) -> TokenManagerBuilder<String>,
    ) -> TokenManager<String> {
        self.built(TokenManager::builder(spy.store()), configure)
    }

    fn built(
        &self,
        builder: TokenManagerBuilder,
        configure: impl FnOnce(TokenManagerBuilder<String>) -> TokenManagerBuilder<String>,
    ) -> TokenManager<String> {
        let failures = self.clone();
        let builder = builder
            .load_user(async |id: String| match &*id {
                "broken" => Err(io::Error::other("the database is down")),
                "panics" => panic!("the loader panics, as it was told"),
                "hangs" => std::future::pending().await,
                "large" => Ok(Some("x".repeat(1000))),
                _ => Ok(Some(id)),
            })
            .max_user_size(500)
            .on_event(move |event| failures.hear(event));
        configure(builder).build().unwrap()
    }

    fn hear(&self, event: &Event<'_>) {
        if let EventKind::Failed {
            operation,
            user_id,
            token_id,
            error,
            ..
        } = event.kind()
        {
            let mut heard = format!("{operation} {}", user_id.unwrap_or("-"));
            if let Some(token_id) = token_id {
                heard = format!("{heard} {token_id}");
            }
            let heard = format!("{heard} {:?}", error.kind());
            self.0.lock().unwrap().push(heard);
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
