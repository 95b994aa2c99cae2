use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderName, HeaderValue, Response,
    header::{AUTHORIZATION, COOKIE},
};
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, Event, EventKind, OnFull, RefusalReason, Session, SessionLayer, Token, TokenManager,
    TokenOptions, middleware::TokenSource, store::Operation,
};

use super::{Mood, Profile, Spy, bearer, manager, request};

/// Every step of a session's life is an event, with the user and the public handle; a step that fails is a failure.
#[tokio::test(start_paused = true)]
async fn every_step_is_an_event() {
    let spy = Spy::default();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let ear = Arc::clone(&heard);
    let events = || std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    let manager: TokenManager<Profile> = TokenManager::builder(spy.store())
        .load_user(async |id: String| {
            let known = (id != "nobody").then_some(Profile { name: id });
            Ok::<_, io::Error>(known)
        })
        .session_limit(2, OnFull::EvictOldest)
        .on_event(move |event: &Event<'_>| {
            ear.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(told(event));
        })
        .build()
        .unwrap();

    let log_in = async || {
        manager
            .set_token("al", Duration::from_secs(60))
            .await
            .unwrap()
    };
    let (first, second) = (log_in().await, {
        advance(Duration::from_secs(1)).await;
        log_in().await
    });
    assert_eq!(events(), [told_in(first.id()), told_in(second.id())]);
    advance(Duration::from_secs(1)).await;
    let third = log_in().await;
    assert_eq!(
        events(),
        [format!("evicted al {}", first.id()), told_in(third.id())]
    );

    let check = async |token: &str| manager.check_token_or_update_user(token, None).await;
    assert!(check(second.expose_secret()).await.unwrap().is_some());
    assert!(events().is_empty());
    check("x").await.unwrap();
    check(first.expose_secret()).await.unwrap();
    assert_eq!(
        events(),
        ["refused None malformed", "refused Some(\"al\") not_live"]
    );
    manager
        .refresh_token(second.expose_secret(), None)
        .await
        .unwrap();
    manager
        .refresh_token(first.expose_secret(), None)
        .await
        .unwrap();
    let refreshed = format!("refreshed al {}", second.id());
    assert_eq!(events(), [&*refreshed, "refused Some(\"al\") not_live"]);

    manager.delete_token(third.expose_secret()).await.unwrap();
    manager.delete_token(third.expose_secret()).await.unwrap();
    assert_eq!(events(), [format!("out al {}", third.id())]);
    manager
        .delete_other_user_tokens("al", second.id())
        .await
        .unwrap();
    manager.delete_user_tokens("al").await.unwrap();
    let others = format!("out of 0 al {:?}", Some(second.id()));
    assert_eq!(events(), [&*others, "out of 1 al None"]);

    let nobody = manager.set_token("nobody", None).await.unwrap();
    events();
    check(nobody.expose_secret()).await.unwrap();
    check(nobody.expose_secret()).await.unwrap();
    assert_eq!(events(), ["refused Some(\"nobody\") no_such_user"; 2]);

    spy.set(Mood::Fails(ErrorKind::SessionLimit));
    manager.set_token("al", None).await.unwrap_err();
    assert_eq!(events(), ["refused Some(\"al\") session_limit"]);
    spy.set(Mood::Fails(ErrorKind::Timeout));
    check(second.expose_secret()).await.unwrap_err();
    manager.delete_user_tokens("al").await.unwrap_err();
    let failed = |operation| format!("failed {operation} Some(\"al\") Timeout");
    assert_eq!(events(), [failed("check"), failed("delete_all")]);
}

/// Refusals for the way in which a token came are events, too; a renewal that comes too late is none.
#[tokio::test(start_paused = true)]
async fn refusals_of_the_layer_are_events() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let ear = Arc::clone(&heard);
    let spy = Spy::default();
    let manager: TokenManager = TokenManager::builder(spy.store())
        .on_event(move |event| ear.lock().unwrap().push(told(event)))
        .build()
        .unwrap();
    let token = manager
        .set_token("al", Duration::from_secs(60))
        .await
        .unwrap();
    let layer = SessionLayer::new(manager)
        .refresh_below(Duration::from_secs(20))
        .token_sources([
            TokenSource::authorization(),
            TokenSource::cookie("s").unwrap(),
        ]);
    let log_out = service_fn(async |request: http::Request<()>| {
        let session: &Session = request.extensions().get().expect("a session");
        session.log_out().await.unwrap();
        Ok::<_, Infallible>(Response::new(()))
    });
    let ask = async |fields: &[(HeaderName, &[u8])]| {
        heard.lock().unwrap().clear();
        let mut request = http::Request::new(());
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        layer.layer(log_out).oneshot(request).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        heard.lock().unwrap().clone()
    };
    assert!(ask(&[]).await.is_empty());
    let malformed = ["refused None malformed"];
    assert_eq!(ask(&[(AUTHORIZATION, b"Bearer \xff")]).await, malformed);
    assert_eq!(ask(&[(COOKIE, b"s=a; s=b")]).await, malformed);
    let two = [
        (AUTHORIZATION, &b"Bearer x"[..]),
        (AUTHORIZATION, b"Bearer x"),
    ];
    assert_eq!(ask(&two).await, ["refused None several_tokens"]);
    advance(Duration::from_secs(50)).await;
    let bearer = format!("Bearer {}", token.expose_secret());
    // The renewal arrives after the logout of the handler.
    spy.faults
        .on(Operation::Update)
        .delay(Duration::from_secs(1));
    ask(&[(AUTHORIZATION, bearer.as_bytes())]).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(spy.refreshes(), 1);
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard, [format!("out al {}", token.id())]);
}

fn told_in(token_id: &tower_bearer_session::TokenId) -> String {
    format!("in al {token_id}")
}

fn told(event: &Event<'_>) -> String {
    match event.kind() {
        EventKind::LoggedIn {
            user_id, token_id, ..
        } => format!("in {user_id} {token_id}"),
        EventKind::Evicted {
            user_id, token_id, ..
        } => format!("evicted {user_id} {token_id}"),
        EventKind::Refreshed {
            user_id, token_id, ..
        } => format!("refreshed {user_id} {token_id}"),
        EventKind::LoggedOut {
            user_id, token_id, ..
        } => format!("out {user_id} {token_id}"),
        EventKind::LoggedOutAll {
            user_id,
            kept,
            sessions,
            ..
        } => {
            format!("out of {sessions} {user_id} {kept:?}")
        }
        EventKind::Refused {
            user_id, reason, ..
        } => {
            let unread = matches!(
                reason,
                RefusalReason::Malformed | RefusalReason::SeveralTokens
            );
            assert_eq!(unread, user_id.is_none());
            format!("refused {user_id:?} {}", reason.as_str())
        }
        EventKind::Failed {
            operation,
            user_id,
            error,
            ..
        } => format!("failed {operation} {user_id:?} {:?}", error.kind()),
        _ => panic!("{event:?}"),
    }
}

/// A store that tells of changes has its streams end without a poll, and a change of another session ends none.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_pushed() {
    let spy = Spy::default();
    let builder = TokenManager::builder(spy.store()).revocation_poll(Duration::from_secs(3600));
    let manager: TokenManager = builder.build().unwrap();
    let inner = service_fn(async |request: http::Request<()>| {
        let session: &Session = request.extensions().get().expect("a session");
        Ok::<_, io::Error>(Response::new(Some(session.clone())))
    });
    let service = SessionLayer::new(manager.clone()).layer(inner);
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let token = manager.set_token("al", None).await.unwrap();
        let response = service.clone().oneshot(request([bearer(&token)])).await;
        sessions.push(response.unwrap().into_body().unwrap());
    }
    let mut ends: Vec<_> = sessions.iter().map(|one| Box::pin(one.revoked())).collect();
    let moment = Duration::from_secs(1);
    for end in &mut ends {
        timeout(moment, end).await.expect_err("it is live");
    }
    sessions[0].log_out().await.unwrap();
    timeout(moment, &mut ends[0]).await.expect("no poll later");
    timeout(moment, &mut ends[1]).await.expect_err("it is live");
    assert!(sessions[1].refresh(None).await.unwrap());
    timeout(moment, &mut ends[1]).await.expect_err("it is live");
    sessions[1].log_out_everywhere().await.unwrap();
    timeout(moment, &mut ends[1]).await.expect("no poll later");
}

/// Whoever waits for the end of a session learns of each kind of end at the next poll, and of none before; an
/// outage is no end.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_told() {
    let spy = Spy::default();
    let manager = manager(&spy);
    let ttl = Duration::from_secs(60);
    let of = async |token: &Token| {
        let layer = SessionLayer::new(manager.clone());
        let inner = service_fn(async |request: http::Request<()>| {
            let session: &Session<Profile> = request.extensions().get().expect("a session");
            Ok::<_, io::Error>(Response::new(Some(session.clone())))
        });
        let response = layer.layer(inner).oneshot(request([bearer(token)])).await;
        response.unwrap().into_body().expect("a session")
    };
    let session = async || of(&manager.set_token("al", ttl).await.unwrap()).await;
    let poll = Duration::from_secs(5);

    let expiring = session().await;
    let start = Instant::now();
    expiring.revoked().await;
    assert!(
        (ttl..ttl + poll).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );

    let ended = session().await;
    ended.log_out().await.unwrap();
    timeout(Duration::from_millis(1), ended.revoked())
        .await
        .expect("at once");

    let revoked = session().await;
    let mut end = std::pin::pin!(revoked.revoked());
    timeout(3 * poll, &mut end).await.expect_err("it is live");
    revoked.log_out_everywhere().await.unwrap();
    timeout(poll, &mut end).await.expect("a poll later");

    let evicted = session().await;
    let single: TokenManager = TokenManager::builder(spy.store())
        .single_mode()
        .build()
        .unwrap();
    let mut end = std::pin::pin!(evicted.revoked());
    timeout(3 * poll, &mut end).await.expect_err("it is live");
    single.set_token("al", None).await.unwrap();
    timeout(poll, &mut end).await.expect("a poll later");

    let options = TokenOptions::new().ttl(ttl).max_lifetime(ttl / 2);
    let finite = manager.set_token_with("al", options).await.unwrap().token;
    let finite = of(&finite).await;
    let mut end = std::pin::pin!(finite.revoked());
    timeout(poll, &mut end).await.expect_err("it is live");
    spy.set(Mood::Fails(ErrorKind::Unavailable));
    let start = Instant::now();
    timeout(ttl, &mut end).await.expect("an end that is known");
    assert!(start.elapsed() <= ttl / 2, "{:?}", start.elapsed());
    spy.set(Mood::Works);

    let cut_off = session().await;
    let mut end = std::pin::pin!(cut_off.revoked());
    spy.set(Mood::Fails(ErrorKind::Unavailable));
    timeout(10 * ttl, &mut end).await.expect_err("nobody knows");
    spy.set(Mood::Works);
    timeout(poll, &mut end)
        .await
        .expect("it has expired meanwhile");
}
