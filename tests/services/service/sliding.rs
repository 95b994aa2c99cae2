use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    task::yield_now,
    time::{advance, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    EventKind, Session, Token, TokenManager, TokenOptions, store::Operation,
};

use super::{Mood, Profile, SessionLayer, Spy, bearer, manager, request};

const SECOND: Duration = Duration::from_secs(1);

/// A session of a minute under a layer that renews below 20 seconds.
struct Sliding {
    spy: Spy,
    manager: TokenManager<Profile>,
    layer: SessionLayer<Profile>,
}

impl Sliding {
    fn new(below: Duration) -> Self {
        let spy = Spy::default();
        let manager = manager(&spy);
        let layer = SessionLayer::new(manager.clone()).refresh_below(below);
        Self {
            spy,
            manager,
            layer,
        }
    }

    async fn log_in(&self, options: TokenOptions) -> Token {
        let token = self
            .manager
            .set_token_with("al", options)
            .await
            .unwrap()
            .token;
        // The first check loads the user.
        self.ask(&token).await;
        token
    }

    /// The status of a request, and how many refreshes it made, what it left running included.
    async fn ask(&self, token: &Token) -> (u16, u64) {
        self.spy.refreshes();
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let service = self.layer.layer(inner);
        let response = service.oneshot(request([bearer(token)])).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        (response.status().as_u16(), self.spy.refreshes())
    }

    async fn remaining(&self, token: &Token) -> Option<Duration> {
        let user = self.manager.check_token(token.expose_secret()).await;
        user.unwrap()?.token_remaining()
    }
}

fn minute() -> TokenOptions {
    TokenOptions::new().ttl(60 * SECOND)
}

/// One write in every `ttl - remaining`, whatever the number of requests; and for the session's own ttl, not for
/// the manager's.
#[tokio::test(start_paused = true)]
async fn a_busy_session_is_written_now_and_then() {
    let sliding = Sliding::new(20 * SECOND);
    let token = sliding.log_in(minute()).await;
    let (mut requests, mut writes) = (0, 0);
    for _ in 0..500 {
        advance(SECOND).await;
        let (status, refreshes) = sliding.ask(&token).await;
        assert_eq!(status, 200);
        requests += 1;
        writes += refreshes;
    }
    println!("{writes} writes for {requests} requests");
    // Every 41 seconds.
    assert_eq!(writes, 12);
    assert!(sliding.remaining(&token).await.unwrap() <= 60 * SECOND);
}

/// A threshold that no session ever exceeds does not mean a write per request; any other one counts as it is.
#[tokio::test(start_paused = true)]
async fn a_threshold_above_the_ttl_is_half_of_it() {
    for (below, expected) in [(3600, 2), (60, 2), (59, 31), (50, 5)] {
        let sliding = Sliding::new(below * SECOND);
        let token = sliding.log_in(minute()).await;
        let mut writes = 0;
        for _ in 0..62 {
            advance(SECOND).await;
            writes += sliding.ask(&token).await.1;
        }
        assert_eq!(writes, expected, "{below}");
    }
}

/// A session ends at its absolute end, however busy it is, and nothing tries to move that.
#[tokio::test(start_paused = true)]
async fn the_absolute_end_stands() {
    let sliding = Sliding::new(20 * SECOND);
    let token = sliding.log_in(minute().max_lifetime(100 * SECOND)).await;
    let mut writes = 0;
    for _ in 0..99 {
        advance(SECOND).await;
        let (status, refreshes) = sliding.ask(&token).await;
        assert_eq!(status, 200);
        writes += refreshes;
    }
    // Once: what is good until the end cannot be prolonged.
    assert_eq!(writes, 1);
    advance(SECOND).await;
    assert_eq!(sliding.ask(&token).await.0, 401);
}

/// A burst of requests of one session makes one renewal, at whichever layer they come in, and a logout in between wins.
#[tokio::test(start_paused = true)]
async fn one_renewal_at_a_time_and_none_after_a_logout() {
    let sliding = Sliding::new(20 * SECOND);
    let token = sliding.log_in(minute()).await;
    advance(50 * SECOND).await;
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let other = SessionLayer::new(sliding.manager.clone()).refresh_below(20 * SECOND);
    sliding.spy.refreshes();
    for layer in [&sliding.layer, &other].repeat(50) {
        let service = layer.layer(inner);
        // Nothing that was spawned has run yet.
        service.oneshot(request([bearer(&token)])).await.unwrap();
    }
    for _ in 0..10 {
        yield_now().await;
    }
    assert_eq!(sliding.spy.refreshes(), 1);
    assert_eq!(sliding.remaining(&token).await, Some(60 * SECOND));

    advance(50 * SECOND).await;
    let service = sliding.layer.layer(inner);
    service.oneshot(request([bearer(&token)])).await.unwrap();
    sliding.manager.delete_user_tokens("al").await.unwrap();
    for _ in 0..10 {
        yield_now().await;
    }
    assert_eq!(sliding.remaining(&token).await, None);
}

/// A renewal that fails or hangs costs no request anything, and is tried again.
#[tokio::test(start_paused = true)]
async fn a_failed_renewal_is_tried_again() {
    let sliding = Sliding::new(20 * SECOND);
    for mood in [Mood::Fails(super::ErrorKind::Timeout), Mood::Hangs] {
        let token = sliding.log_in(minute()).await;
        advance(45 * SECOND).await;
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let service = sliding.layer.layer(inner);
        service.oneshot(request([bearer(&token)])).await.unwrap();
        sliding.spy.set(mood);
        for _ in 0..10 {
            yield_now().await;
        }
        sliding.spy.set(Mood::Works);
        assert_eq!(sliding.remaining(&token).await, Some(15 * SECOND));
        // One that hangs is given up after ten seconds.
        sleep(11 * SECOND).await;
        assert_eq!(sliding.ask(&token).await, (200, 1));
        assert_eq!(sliding.remaining(&token).await, Some(60 * SECOND));
    }
}

/// What a handler does to its own session stands, whether it prolongs or shortens it.
#[tokio::test(start_paused = true)]
async fn a_refresh_by_the_handler_stands() {
    let sliding = Sliding::new(20 * SECOND);
    for ttl in [3600 * SECOND, SECOND] {
        let token = sliding.log_in(minute()).await;
        advance(50 * SECOND).await;
        let inner = service_fn(async |request: Request<()>| {
            let session: &Session<Profile> = request.extensions().get().unwrap();
            assert!(session.refresh(ttl).await.unwrap());
            Ok::<_, Infallible>(Response::new(()))
        });
        let service = sliding.layer.layer(inner);
        service.oneshot(request([bearer(&token)])).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(sliding.remaining(&token).await, Some(ttl));
    }
}

/// What happens between the check of a request and its renewal stands: a refresh for longer or shorter, a logout.
#[tokio::test(start_paused = true)]
async fn a_change_between_the_check_and_the_renewal_stands() {
    let sliding = Sliding::new(20 * SECOND);
    for ttl in [
        Some(3600 * SECOND),
        Some(5 * SECOND),
        Some(60 * SECOND),
        None,
    ] {
        let token = sliding.log_in(minute()).await;
        advance(50 * SECOND).await;
        let updates = sliding.spy.faults.on(Operation::Update);
        updates.delay(SECOND);
        assert_eq!(sliding.ask(&token).await, (200, 1));
        updates.heal();
        let token_text = token.expose_secret();
        match ttl {
            Some(ttl) => assert!(
                sliding
                    .manager
                    .refresh_token(token_text, ttl)
                    .await
                    .unwrap()
            ),
            None => assert!(sliding.manager.delete_token(token_text).await.unwrap()),
        }
        // The renewal arrives.
        sleep(2 * SECOND).await;
        let left = ttl.map(|ttl| ttl - 2 * SECOND);
        assert_eq!(sliding.remaining(&token).await, left);
    }
}

/// A renewal does not look again: the request has looked just now.
#[tokio::test(start_paused = true)]
async fn a_renewal_is_one_store_call() {
    let sliding = Sliding::new(20 * SECOND);
    let token = sliding.log_in(minute()).await;
    advance(50 * SECOND).await;
    sliding.spy.calls();
    assert_eq!(sliding.ask(&token).await, (200, 1));
    assert_eq!(sliding.spy.calls(), 2, "a check and an update");
}

/// Of two processes that renew a session at the same time one does, and reports it.
#[tokio::test(start_paused = true)]
async fn one_of_two_processes_renews() {
    let (spy, refreshed) = (Spy::default(), Arc::<AtomicU64>::default());
    let managers = [(); 2].map(|()| {
        let counted = Arc::clone(&refreshed);
        TokenManager::builder(spy.store())
            .user_type::<Profile>()
            .on_event(move |event| {
                if let EventKind::Refreshed { .. } = event.kind() {
                    counted.fetch_add(1, Relaxed);
                }
            })
            .build()
            .unwrap()
    });
    let token = managers[0].set_token("al", 60 * SECOND).await.unwrap();
    advance(50 * SECOND).await;
    spy.faults.on(Operation::Update).delay(SECOND);
    spy.refreshes();
    for manager in &managers {
        let layer = SessionLayer::new(manager.clone()).refresh_below(20 * SECOND);
        let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let request = request([bearer(&token)]);
        layer.layer(inner).oneshot(request).await.unwrap();
    }
    sleep(2 * SECOND).await;
    assert_eq!((spy.refreshes(), refreshed.load(Relaxed)), (2, 1));
    let user = managers[1].check_token(token.expose_secret()).await;
    let remaining = user.unwrap().expect("a live token").token_remaining();
    assert_eq!(remaining, Some(59 * SECOND));
}

/// A renewal that arrives after the absolute end does not bring the session back.
#[tokio::test(start_paused = true)]
async fn a_renewal_after_the_absolute_end_does_nothing() {
    let sliding = Sliding::new(20 * SECOND);
    let options = TokenOptions::new().ttl(30 * SECOND);
    let token = sliding.log_in(options.max_lifetime(31 * SECOND)).await;
    advance(29 * SECOND).await;
    sliding.spy.faults.on(Operation::Update).delay(5 * SECOND);
    assert_eq!(sliding.ask(&token).await, (200, 1));
    sleep(6 * SECOND).await;
    assert_eq!(sliding.remaining(&token).await, None);
    let sessions = sliding.manager.list_user_tokens("al").await.unwrap();
    assert!(sessions.is_empty());
}

/// Without sliding expiry requests write nothing.
#[tokio::test(start_paused = true)]
async fn nothing_slides_unless_asked_for() {
    let sliding = Sliding::new(20 * SECOND);
    let token = sliding.log_in(minute()).await;
    let plain = Sliding {
        layer: SessionLayer::new(sliding.manager.clone()),
        ..sliding
    };
    advance(59 * SECOND).await;
    assert_eq!(plain.ask(&token).await, (200, 0));
}
