use std::{convert::Infallible, fmt::Debug, rc::Rc, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Request, Response, StatusCode};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Error, ErrorKind, Event, EventKind, IssuedToken, MemoryStore, OnFull, RedisStore,
    RedisStoreBuilder, RefreshedUsers, RefusalReason, Rejection, ReplaceOptions, Replacement,
    Scopes, Session, SessionLayer, Token, TokenId, TokenInfo, TokenManager, TokenManagerBuilder,
    TokenOptions, User,
    middleware::{
        Guard, PlainResponse, ProblemJson, RequestHead, RequirePredicate,
        RequireRecentAuthentication, RequireScope, RequireSession, ResponseFuture, Revoked,
        SessionCookie, SessionService, SetCookie, TokenSource,
    },
    store::{
        Checked, Created, InterceptedStore, NewSession, PutMode, SessionLimit, SessionRecord,
        StoreCall,
    },
    test_util::Faults,
};
use tower_test::mock::Mock;

use super::{Profile, Spy, bearer, logged_in, manager, request};

type Inner = Mock<Request<()>, Response<()>>;

/// Everything public can be sent, shared, moved and printed, whatever the application's type is: neither
/// `Clone` nor `Debug`.
#[test]
fn public_types_are_send_sync_unpin_and_debug() {
    fn holds<T: Send + Sync + Unpin + Debug>() {}
    holds::<SessionLayer<Profile>>();
    holds::<SessionService<Inner, Profile>>();
    holds::<Session<Profile>>();
    holds::<User<Profile>>();
    holds::<TokenManager<Profile>>();
    holds::<TokenManagerBuilder<Profile>>();
    holds::<Rejection>();
    holds::<(MemoryStore, RedisStore, RedisStoreBuilder)>();
    holds::<(Error, ErrorKind, OnFull)>();
    holds::<(Token, TokenId, TokenInfo, TokenOptions, IssuedToken)>();
    holds::<RefreshedUsers>();
    holds::<(Checked, Created, NewSession, SessionLimit, SessionRecord)>();
    holds::<PutMode<'_>>();
    holds::<(Event<'_>, EventKind<'_>)>();
    holds::<(RefusalReason, PlainResponse, ProblemJson)>();
    holds::<(TokenSource, RequestHead<'_>)>();
    holds::<Revoked>();
    holds::<(
        Scopes,
        SessionCookie,
        SetCookie,
        ReplaceOptions,
        Replacement,
    )>();
    holds::<(RequireSession, RequireScope, RequirePredicate)>();
    holds::<(RequireRecentAuthentication, Guard<Inner>)>();
    holds::<(InterceptedStore<MemoryStore, Faults>, StoreCall<'_>)>();

    fn may_be_sent<T: Send + Unpin + Debug>() {}
    may_be_sent::<ResponseFuture<Inner, Profile, ()>>();
}

/// The handles are `Clone`, whatever the application's type is.
#[test]
fn handles_are_clone() {
    fn holds<T: Clone>() {}
    holds::<SessionLayer<Profile>>();
    holds::<SessionService<Inner, Profile>>();
    holds::<Session<Profile>>();
    holds::<User<Profile>>();
    holds::<TokenManager<Profile>>();
    holds::<(MemoryStore, RedisStore, RedisStoreBuilder)>();
    holds::<(Error, Rejection, Token, TokenInfo, TokenOptions)>();
}

/// Errors are errors, with their cause behind them.
#[test]
fn errors_are_errors() {
    fn source(error: &dyn std::error::Error) -> Option<String> {
        error.source().map(ToString::to_string)
    }
    let error = Error::new(ErrorKind::Store, "the cause");
    assert_eq!(source(&error), None);
    let rejection = Rejection::Fault(error);
    assert_eq!(source(&rejection).as_deref(), Some("the cause"));
    assert_eq!(source(&Rejection::MissingToken), None);
}

/// Nothing but what is necessary is asked of the inner service: its bodies, its error, its future and itself
/// need not be `Send`, nor live for ever.
#[tokio::test]
async fn nothing_of_the_inner_service_must_be_send() {
    type Body<'a> = (Rc<()>, &'a str);
    async fn echo(request: Request<Body<'_>>) -> Result<Response<Body<'_>>, Rc<str>> {
        let body = request.into_body();
        yield_now().await;
        Ok(Response::new(body))
    }
    let (token, layers) = logged_in(&Spy::default(), "al").await;
    let text = String::from("borrowed");
    for layer in layers {
        let layer = layer.refresh_below(Duration::from_secs(1)).token_sources([
            TokenSource::websocket_protocol(),
            TokenSource::authorization(),
        ]);
        // Nor need a hook.
        let local = Rc::new(());
        let with_hook =
            layer
                .clone()
                .on_rejection(move |_: &Rejection, response: Response<Body<'_>>| {
                    response.map(|_| (Rc::clone(&local), ""))
                });
        let ask = || request([bearer(&token)]).map(|()| (Rc::default(), &*text));
        let response = layer.layer(service_fn(echo)).oneshot(ask()).await.unwrap();
        assert_eq!(response.body().1, text);
        let service = with_hook.layer(service_fn(echo));
        let response = service.oneshot(ask()).await.unwrap();
        assert_eq!(response.body().1, text);
    }
}

/// The same as a task of a `LocalSet`.
#[tokio::test]
async fn the_layer_runs_in_a_local_set() {
    let (token, [layer, _]) = logged_in(&Spy::default(), "al").await;
    let request = request([bearer(&token)]).map(Rc::new);
    let run = async move {
        let inner = service_fn(async |request: Request<Rc<()>>| {
            yield_now().await;
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let call = spawn_local(layer.layer(inner).oneshot(request));
        call.await.unwrap().unwrap().status()
    };
    assert_eq!(LocalSet::new().run_until(run).await, StatusCode::OK);
}

/// The layer fits an axum router, whatever the application's type is.
#[tokio::test]
async fn a_router_takes_the_layer() {
    let spy = Spy::default();
    let (token, [required, optional]) = logged_in(&spy, "al").await;
    let name = async |user: User<Profile>| user.detail().map(|it| it.name.clone()).unwrap();
    let router = Router::new()
        .route("/layer", get(name))
        .layer(required.clone())
        .route("/route_layer", get(name))
        .route_layer(optional.clone())
        .route("/method", get(name).layer(required.clone()))
        .nest("/nest", Router::new().route("/", get(name)).layer(required))
        .with_state(Arc::new(manager(&spy)));
    for path in ["/layer", "/route_layer", "/method", "/nest"] {
        let request = request([bearer(&token)]).map(|()| Body::empty());
        let (mut parts, body) = request.into_parts();
        parts.uri = path.parse().unwrap();
        let request = Request::from_parts(parts, body);
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let body = axum::body::to_bytes(response.into_body(), 100).await;
        assert_eq!(body.unwrap(), "AL", "{path}");
    }
}
