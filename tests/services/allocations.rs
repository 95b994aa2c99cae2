//! What a check costs in heap allocations: a figure that no busy machine changes, so a test can hold it. The bounds
//! are those that the performance guide names.

use std::{convert::Infallible, sync::Arc};

use ::redis::{AsyncConnectionConfig, Client, Pipeline};
use http::{
    HeaderValue, Request, Response,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use tokio::{runtime::Runtime, task::JoinSet};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_bearer_session::{
    MemoryStore, RedisStore, Rejection, SessionLayer, SessionStore, TokenManager,
};

use crate::{
    harness::{Flavor, RedisServer},
    stores::patient,
};

type Reply = (Option<Vec<u8>>, Option<Vec<u8>>, (u64, u64));

/// At most five for a live token. The layer's own refusal takes what a response with a header field and an extension
/// takes.
#[test]
fn the_layer_on_memory() {
    let runtime = runtime();
    let (manager, token) = runtime.block_on(logged_in(MemoryStore::new()));
    let inner = service_fn(async |request: Request<()>| {
        // What is dropped may not be made.
        drop(request);
        Ok::<_, Infallible>(Response::new(()))
    });
    let layered = SessionLayer::new(manager).layer(inner);
    let bearer = format!("Bearer {token}");
    let with = |bearer: &str| {
        let request = Request::builder().header(AUTHORIZATION, bearer);
        request.body(()).unwrap()
    };
    let bare = of_a_request(&runtime, &inner, || with(&bearer));
    let least = of_a_request(&runtime, &service_fn(refuse_by_hand), Request::default);
    let layer = |request: &dyn Fn() -> Request<()>| of_a_request(&runtime, &layered, request);
    for (what, most, cost) in [
        ("live", bare + 5, layer(&|| with(&bearer))),
        ("malformed", least, layer(&|| with("Bearer tbs1.x.y"))),
        ("missing", least, layer(&|| Request::new(()))),
    ] {
        println!("{what}: {cost} allocations, without the layer {bare}");
        assert!(cost <= most, "{what}: {cost} allocations");
    }
}

/// A refusal of a handler takes no more under a layer than without one, but for the extension of the anonymous request.
#[test]
fn a_refusal_of_a_handler() {
    let runtime = runtime();
    let (manager, _) = runtime.block_on(logged_in(MemoryStore::new()));
    let inner = service_fn(async |_: Request<()>| {
        let response = Response::<String>::from(Rejection::InvalidToken);
        Ok::<_, Infallible>(response.map(drop))
    });
    let layered = SessionLayer::new(manager).optional().layer(inner);
    let bare = of_a_request(&runtime, &inner, Request::default);
    let cost = of_a_request(&runtime, &layered, Request::default);
    println!("{cost} allocations, without the layer {bare}");
    assert!(cost <= bare + 3, "{cost} allocations");
}

/// Sixty-four checks at a time make at most 0.75 of those that the same commands make as pipelines that are written by
/// hand, one for each check. (How many share a batch depends a little on the machine: 0.70 to 0.72.)
#[test]
fn a_check_on_redis() {
    const TASKS: u64 = 64;
    const CHECKS: u64 = 50;
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::start(Flavor::Redis));
    let store = patient(RedisStore::builder(server.url()));
    let (manager, token) =
        runtime.block_on(async { logged_in(store.connect().await.unwrap()).await });
    let token: Arc<str> = token.into();
    let parsed = runtime.block_on(manager.check_token(&token)).unwrap();
    let id = parsed.unwrap().token_id().unwrap().to_string();
    let connection = runtime.block_on(async {
        // Without a timer for each pipeline.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = Client::open(server.url()).unwrap();
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.unwrap()
    });
    let by_hand = || {
        let (mut connection, id) = (connection.clone(), id.clone());
        async move {
            for _ in 0..CHECKS {
                let mut pipeline = Pipeline::with_capacity(3);
                pipeline.hget("tbs:tokens:{alice}", &id);
                pipeline.get("tbs:users:{alice}").cmd("TIME");
                let reply: Reply = pipeline.query_async(&mut connection).await.unwrap();
                assert!(reply.0.is_some() && reply.1.is_some());
            }
        }
    };
    let checks = || {
        let (manager, token) = (manager.clone(), Arc::clone(&token));
        async move {
            for _ in 0..CHECKS {
                let user = manager.check_token_or_update_user(&token, None).await;
                assert!(user.unwrap().is_some());
            }
        }
    };
    let per_check = |total: u64| total as f64 / (TASKS * CHECKS) as f64;
    let by_hand = per_check(of_tasks(&runtime, TASKS, by_hand));
    let checks = per_check(of_tasks(&runtime, TASKS, checks));
    println!("a check: {checks:.1} allocations, a pipeline by hand {by_hand:.1}");
    assert!(checks <= 0.75 * by_hand, "{checks} allocations");
}

/// A response with a header field and an extension.
async fn refuse_by_hand(_: Request<()>) -> Result<Response<()>, Infallible> {
    let mut response = Response::new(());
    let challenge = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response.extensions_mut().insert(Rejection::MissingToken);
    Ok(response)
}

/// A runtime that does all its work on this thread, which is the one that is counted.
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A manager and the token of a user who is cached.
async fn logged_in(store: impl SessionStore) -> (TokenManager<String>, String) {
    let load = async |id: String| Ok::<_, Infallible>(Some(format!("the detail of {id}")));
    let manager = TokenManager::builder(store)
        .load_user(load)
        .build()
        .unwrap();
    let token = manager.set_token("alice", None).await.unwrap();
    let token = token.expose_secret().to_owned();
    for _ in 0..2 {
        let user = manager.check_token_or_update_user(&token, None).await;
        assert!(user.unwrap().is_some());
    }
    (manager, token)
}

/// The allocations of one request, the making of it not counted.
fn of_a_request<S>(runtime: &Runtime, service: &S, request: impl Fn() -> Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone,
{
    let once = || {
        let (service, request) = (service.clone(), request());
        let mut response = None;
        let counted = allocation_counter::measure(|| {
            response = Some(runtime.block_on(service.oneshot(request)).unwrap());
        });
        counted.count_total
    };
    // The first one may find something to be set up.
    once();
    once()
}

/// The allocations of so many tasks at the same time, all that their connection does included.
fn of_tasks<W>(runtime: &Runtime, tasks: u64, work: impl Fn() -> W) -> u64
where
    W: Future<Output = ()> + Send + 'static,
{
    let once = || {
        let all = async {
            let mut running: JoinSet<()> = (0..tasks).map(|_| work()).collect();
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
        };
        allocation_counter::measure(|| runtime.block_on(all)).count_total
    };
    once();
    once()
}
