use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use tokio::{sync::Notify, task::JoinHandle};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_bearer_session::{ErrorKind, SessionLayer, middleware::SessionService};
use tower_test::mock::{self, Handle, Mock, SendResponse, Spawn};

use super::{Mood, Profile, Spy, bearer, logged_in, manager, poll, request};

type Inner = Mock<Request<()>, Response<()>>;
type MockService = Spawn<SessionService<Inner, Profile>>;

/// The layer is ready when the inner service is, wakes when that wakes, and passes its error on.
#[tokio::test]
async fn readiness_is_the_inner_services() {
    for layer in both_modes() {
        let (mut service, mut handle) = spawn(layer);
        handle.allow(0);
        assert!(poll_ready(&mut service).is_pending());
        assert!(!service.is_woken());
        handle.allow(1);
        assert!(service.is_woken());
        assert!(poll_ready(&mut service).is_ready());

        let (mut service, mut handle) = spawn(manager_layer());
        handle.allow(0);
        assert!(poll_ready(&mut service).is_pending());
        handle.send_error("the inner service is broken");
        assert!(service.is_woken());
        let Poll::Ready(Err(error)) = poll_ready(&mut service) else {
            panic!("no error");
        };
        assert_eq!(error.to_string(), "the inner service is broken");
    }
}

/// The inner service that was polled ready is called, on every way there: after a check, and without one.
#[tokio::test]
async fn the_ready_service_is_the_one_called() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    let [required, optional] = layers.map(|layer| layer.layer(Picky { ready: false }));
    let unknown = unknown_token();
    for (mut service, header) in [
        (required, Some(bearer(&token))),
        (optional.clone(), Some(bearer(&token))),
        (optional.clone(), Some(unknown)),
        (optional, None),
    ] {
        for _ in 0..3 {
            let ready = service.ready().await.unwrap();
            let response = ready.call(request(&header)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
    }
}

/// The readiness that a call used up is used up: what stays behind must be polled anew.
#[tokio::test]
async fn what_stays_behind_is_not_ready() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    for layer in layers {
        let (mut service, mut handle) = spawn(layer);
        handle.allow(1);
        assert!(poll_ready(&mut service).is_ready());
        let mut call = tokio::spawn(service.call(request([bearer(&token)])));
        let respond = called(&mut handle, &mut call).await;
        assert!(poll_ready(&mut service).is_pending());
        respond.send_response(Response::new(()));
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

/// While a check runs, the layer takes further requests, and answers them in whatever order.
#[tokio::test]
async fn a_slow_check_does_not_occupy_the_service() {
    let spy = Spy::default();
    let (token, [layer, _]) = logged_in(&spy, "al").await;
    let (mut service, mut handle) = spawn(layer);
    spy.set(Mood::Hangs);
    assert!(poll_ready(&mut service).is_ready());
    let mut slow = pin!(service.call(request([bearer(&token)])));
    assert!(poll(slow.as_mut()).is_pending());

    spy.set(Mood::Works);
    assert!(poll_ready(&mut service).is_ready());
    let mut call = tokio::spawn(service.call(request([bearer(&token)])));
    let respond = called(&mut handle, &mut call).await;
    respond.send_response(Response::new(()));
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    assert!(poll(slow).is_pending());
}

/// A rejected request never reaches the inner service, in either mode.
#[tokio::test]
async fn a_rejected_request_stays_outside() {
    let spy = Spy::default();
    let (token, [required, optional]) = logged_in(&spy, "al").await;
    let token = bearer(&token);
    let rejected = [
        (&required, vec![], StatusCode::UNAUTHORIZED),
        (&required, vec!["Basic eA=="], StatusCode::UNAUTHORIZED),
        (&required, vec!["Bearer x"], StatusCode::UNAUTHORIZED),
        (&required, vec![&token, &token], StatusCode::BAD_REQUEST),
        (&optional, vec![&token, &token], StatusCode::BAD_REQUEST),
    ];
    for (layer, headers, status) in rejected {
        let (mut service, mut handle) = spawn(layer.clone());
        assert!(poll_ready(&mut service).is_ready());
        let response = rejected_by(&mut service, &mut handle, request(&headers)).await;
        assert_eq!(response.status(), status, "{headers:?}");
    }
    spy.set(Mood::Fails(ErrorKind::Timeout));
    for layer in [required, optional] {
        let (mut service, mut handle) = spawn(layer);
        assert!(poll_ready(&mut service).is_ready());
        let response = rejected_by(&mut service, &mut handle, request([&token])).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// A client that goes away during the check leaves nothing behind: the inner service is not called, and
/// the next request is fine.
#[tokio::test]
async fn a_request_may_be_dropped_while_its_check_runs() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    for layer in layers {
        let (mut service, mut handle) = spawn(layer);
        handle.allow(1);
        spy.set(Mood::Hangs);
        spy.calls();
        assert!(poll_ready(&mut service).is_ready());
        let mut call = Box::pin(service.call(request([bearer(&token)])));
        assert!(poll(call.as_mut()).is_pending());
        assert_eq!(spy.calls(), 1);
        drop(call);
        assert!(handle.poll_request().is_pending());

        spy.set(Mood::Works);
        assert!(poll_ready(&mut service).is_ready());
        let mut call = tokio::spawn(service.call(request([bearer(&token)])));
        let respond = called(&mut handle, &mut call).await;
        respond.send_response(Response::new(()));
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

/// Dropping the layer's future drops the inner one, wherever that is.
#[tokio::test]
async fn a_request_may_be_dropped_while_the_inner_service_works() {
    let spy = Spy::default();
    let (token, layers) = logged_in(&spy, "al").await;
    for layer in layers {
        let (request_came, at_work) = (Notify::new(), Arc::new(()));
        let inner = service_fn(|_: Request<()>| {
            request_came.notify_one();
            let at_work = Arc::clone(&at_work);
            async move {
                let _at_work = at_work;
                pending::<Result<Response<()>, Infallible>>().await
            }
        });
        let mut call = Box::pin(layer.layer(inner).oneshot(request([bearer(&token)])));
        tokio::select! {
            _ = &mut call => unreachable!("the inner service never answers"),
            () = request_came.notified() => {}
        }
        assert_eq!(Arc::strong_count(&at_work), 2);
        drop(call);
        assert_eq!(Arc::strong_count(&at_work), 1);
    }
}

/// An error of the inner service comes out as it is.
#[tokio::test]
async fn errors_of_the_inner_service_pass() {
    let spy = Spy::default();
    let (token, [required, optional]) = logged_in(&spy, "al").await;
    let token = bearer(&token);
    for (layer, headers) in [
        (required, vec![&token]),
        (optional.clone(), vec![&token]),
        (optional, vec![]),
    ] {
        let (mut service, mut handle) = spawn(layer);
        assert!(poll_ready(&mut service).is_ready());
        let mut call = tokio::spawn(service.call(request(&headers)));
        let respond = called(&mut handle, &mut call).await;
        respond.send_error("the inner service failed");
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the inner service failed");
    }
}

/// A service whose clones are not ready when it is; it panics when it is called before it is ready.
struct Picky {
    ready: bool,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self { ready: false }
    }
}

impl Service<Request<()>> for Picky {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.ready, "called without being ready");
        self.ready = false;
        ready(Ok(Response::new(())))
    }
}

/// The answer of the layer, which must not ask the inner service.
async fn rejected_by(
    service: &mut MockService,
    handle: &mut Handle<Request<()>, Response<()>>,
    request: Request<()>,
) -> Response<()> {
    tokio::select! {
        response = service.call(request) => response.expect("an answer"),
        _ = handle.next_request() => panic!("it reached the inner service"),
    }
}

/// Waits until the inner service is asked; panics if the layer answers by itself.
async fn called(
    handle: &mut Handle<Request<()>, Response<()>>,
    call: &mut JoinHandle<Result<Response<()>, BoxError>>,
) -> SendResponse<Response<()>> {
    tokio::select! {
        request = handle.next_request() => request.expect("a service").1,
        ended = call => panic!("the inner service was not called: {ended:?}"),
    }
}

fn spawn(layer: SessionLayer<Profile>) -> (MockService, Handle<Request<()>, Response<()>>) {
    mock::spawn_layer(layer)
}

fn poll_ready(service: &mut MockService) -> Poll<Result<(), BoxError>> {
    service.poll_ready::<Request<()>>()
}

fn manager_layer() -> SessionLayer<Profile> {
    SessionLayer::new(manager(&Spy::default()))
}

fn both_modes() -> [SessionLayer<Profile>; 2] {
    [manager_layer(), manager_layer().optional()]
}

/// A header with a token that is well-formed, but of nobody.
fn unknown_token() -> String {
    format!("Bearer tbs1.YWw.{}", "A".repeat(43))
}
