use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use tokio::{
    task::yield_now,
    time::{advance, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{Session, Token, TokenManager, TokenOptions};

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
