//! The context of events, the metadata of their sessions, and their JSON.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Response, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::{task::yield_now, time::sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_bearer_session::{
    Anonymous, Error, Event, EventKind, OnFull, ReplaceOptions, Session, SessionLayer,
    TokenManager, TokenOptions,
    middleware::{RequestHead, RequireScope},
    store::Operation,
};

use super::{Mood, Spy, poll, request};

/// The context of the requests of these tests: their path.
struct Path(String);

/// Hears the events of a manager: their names, the path in the context, and the device in the metadata.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl Ear {
    fn hear(&self, event: &Event<'_>) {
        let path = event.context::<Path>().map_or("-", |path| &path.0);
        let metadata = event.metadata().unwrap_or_default();
        let device = metadata.get("device").and_then(Value::as_str);
        let heard = format!("{} {path} {}", event.name(), device.unwrap_or("-"));
        self.0.lock().unwrap().push(heard);
    }

    async fn take(&self) -> Vec<String> {
        for _ in 0..10 {
            yield_now().await;
        }
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn heard_by(spy: &Spy) -> (TokenManager, Ear) {
    let ear = Ear::default();
    let hear = ear.clone();
    let builder = TokenManager::builder(spy.store())
        .session_limit(2, OnFull::EvictOldest)
        .on_event(move |event| hear.hear(event));
    (builder.build().unwrap(), ear)
}

fn layer(manager: &TokenManager) -> SessionLayer {
    SessionLayer::new(manager.clone()).event_context(|request: &RequestHead<'_>| {
        if let Some(value) = request.headers().get(AUTHORIZATION) {
            assert!(value.is_sensitive(), "a context may be logged");
        }
        Path(request.uri().path().to_owned())
    })
}

fn device(name: &str) -> TokenOptions {
    TokenOptions::new().metadata("device", name)
}

async fn token(manager: &TokenManager, name: &str) -> String {
    let issued = manager.set_token_with("al", device(name)).await.unwrap();
    issued.token.expose_secret().to_owned()
}

/// What a handler does with the session of its request, or without one.
async fn act(request: http::Request<()>) -> Result<Response<()>, Infallible> {
    let (path, extensions) = (request.uri().path(), request.extensions());
    let done: Result<(), Error> = async {
        if let Some(anonymous) = extensions.get::<Anonymous>() {
            let login = anonymous.manager().set_token_with("al", device("new"));
            return login.await.map(drop);
        }
        let session: &Session = extensions.get().expect("a session");
        match path {
            "/refresh" => session.refresh(None).await.map(drop),
            "/authenticate" => session.mark_authenticated().await.map(drop),
            "/rename" => {
                let renaming = session.update_metadata(|metadata| {
                    metadata.insert("device".into(), "renamed".into());
                });
                renaming.await.map(drop)
            }
            "/replace" => {
                let options = ReplaceOptions::new().authenticated().end_others();
                session.replace_token(options).await.map(drop)
            }
            "/others" => session.log_out_others().await.map(drop),
            "/everywhere" => session.log_out_everywhere().await.map(drop),
            "/logout" => session.log_out().await.map(drop),
            "/admin" => session.manager().delete_all_tokens().await.map(drop),
            _ => Ok(()),
        }
    }
    .await;
    done.unwrap();
    Ok(Response::new(()))
}

async fn ask<S>(service: &S, path: &str, token: &str)
where
    S: Service<http::Request<()>, Response = Response<()>, Error = Infallible> + Clone,
{
    let mut request = request([format!("Bearer {token}")]);
    *request.uri_mut() = path.parse().unwrap();
    service.clone().oneshot(request).await.unwrap();
}

/// Whatever a request causes, its events have its context; whoever knows the session adds its metadata.
#[tokio::test(start_paused = true)]
async fn events_have_the_context_of_their_request() {
    // Also if the store answers later, or a call is completed after its caller has gone.
    for delay in [Duration::ZERO, Duration::from_millis(3)] {
        let spy = Spy::default();
        for operation in [Operation::Check, Operation::Update, Operation::Delete] {
            spy.faults.on(operation).delay(delay);
        }
        let (manager, ear) = heard_by(&spy);
        let service = layer(&manager).layer(service_fn(act));
        let optional = layer(&manager).optional().layer(service_fn(act));

        let phone = token(&manager, "phone").await;
        assert_eq!(ear.take().await, ["logged_in - phone"]);
        ask(&service, "/", &phone).await;
        assert!(ear.take().await.is_empty());
        ask(&service, "/refresh", &phone).await;
        assert_eq!(ear.take().await, ["refreshed /refresh phone"]);
        ask(&service, "/authenticate", &phone).await;
        assert_eq!(ear.take().await, ["authenticated /authenticate phone"]);

        // Of two sessions that began at the same moment, any may be the older one.
        sleep(Duration::from_secs(1)).await;
        token(&manager, "tablet").await;
        ear.take().await;
        ask(&optional, "/login", "").await;
        let (refused, evicted) = ("refused /login -", "evicted /login phone");
        assert_eq!(ear.take().await, [refused, evicted, "logged_in /login new"]);
        ask(&service, "/", &phone).await;
        assert_eq!(ear.take().await, ["refused / -"]);
        ask(&service, "/malformed", "x").await;
        assert_eq!(ear.take().await, ["refused /malformed -"]);

        let laptop = token(&manager, "laptop").await;
        ear.take().await;
        ask(&service, "/replace", &laptop).await;
        let others = "logged_out_all /replace -";
        let replaced = ["replaced /replace laptop", "authenticated /replace laptop"];
        let told = ear.take().await;
        assert!(told.iter().any(|one| one == others), "{told:?}");
        assert!(
            replaced
                .iter()
                .all(|one| told.iter().any(|told| told == one)),
            "{told:?}"
        );
        sleep(Duration::from_secs(60)).await;
        ask(&service, "/stolen", &laptop).await;
        let told = ear.take().await;
        assert_eq!(told, ["reused /stolen laptop", "refused /stolen laptop"]);

        let phone = token(&manager, "phone").await;
        ear.take().await;
        ask(&service, "/others", &phone).await;
        assert_eq!(ear.take().await, ["logged_out_all /others -"]);
        let scoped = RequireScope::new("admin").unwrap().layer(service_fn(act));
        ask(&layer(&manager).layer(scoped), "/scoped", &phone).await;
        assert_eq!(ear.take().await, ["refused /scoped phone"]);
        ask(&service, "/logout", &phone).await;
        assert_eq!(ear.take().await, ["logged_out /logout phone"]);
        let phone = token(&manager, "phone").await;
        ear.take().await;
        ask(&service, "/everywhere", &phone).await;
        assert_eq!(ear.take().await, ["logged_out_all /everywhere -"]);
        let phone = token(&manager, "phone").await;
        ear.take().await;
        ask(&service, "/admin", &phone).await;
        assert_eq!(ear.take().await, ["logged_out_all /admin -"]);
    }
}

/// A renewal in the background, and a logout whose request has gone, belong to the request all the same.
#[tokio::test(start_paused = true)]
async fn what_outlives_its_request_has_its_context() {
    let spy = Spy::default();
    let (manager, ear) = heard_by(&spy);
    let renewing = layer(&manager).refresh_below(Duration::from_secs(30 * 24 * 3600));
    let service = renewing.layer(service_fn(act));
    let phone = token(&manager, "phone").await;
    sleep(Duration::from_secs(4 * 24 * 3600)).await;
    ear.take().await;
    ask(&service, "/renew", &phone).await;
    assert_eq!(ear.take().await, ["refreshed /renew phone"]);

    let moment = Duration::from_secs(1);
    let service = layer(&manager).layer(service_fn(act));
    for (path, told) in [
        ("/authenticate", &["authenticated /authenticate phone"][..]),
        // A change of the metadata is no event.
        ("/rename", &[]),
        ("/logout", &["logged_out /logout renamed"]),
    ] {
        spy.faults.delay(moment);
        spy.faults.on(Operation::Check).delay(Duration::ZERO);
        {
            let mut asking = pin!(ask(&service, path, &phone));
            for _ in 0..10 {
                assert!(poll(asking.as_mut()).is_pending());
                yield_now().await;
            }
        }
        assert!(ear.take().await.is_empty());
        sleep(2 * moment).await;
        assert_eq!(ear.take().await, told);
    }
}

/// Without a layer, the application gives the context; a failure of the store has none, since its call may serve several
/// requests.
#[tokio::test(start_paused = true)]
async fn a_manager_has_the_context_that_it_is_given() {
    let spy = Spy::default();
    let (manager, ear) = heard_by(&spy);
    let job = manager.with_event_context(Path("job".into()));
    let phone = token(&job, "phone").await;
    assert_eq!(ear.take().await, ["logged_in job phone"]);
    assert_eq!(job.event_context::<Path>().unwrap().0, "job");
    assert!(manager.event_context::<Path>().is_none());
    job.clone().delete_token(&phone).await.unwrap();
    assert_eq!(ear.take().await, ["logged_out job -"]);
    manager.delete_user_tokens("al").await.unwrap();
    assert_eq!(ear.take().await, ["logged_out_all - -"]);
    spy.set(Mood::Fails(tower_bearer_session::ErrorKind::Timeout));
    job.delete_user_tokens("al").await.unwrap_err();
    assert_eq!(ear.take().await, ["failed - -"]);
}

/// One line of an audit log.
#[tokio::test]
async fn events_are_json() {
    let spy = Spy::default();
    let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = Arc::clone(&lines);
    let builder = TokenManager::builder(spy.store()).on_event(move |event| {
        let debug = format!("{event:?}");
        assert!(!debug.contains("phone"), "metadata may be secrets: {debug}");
        let mut line = serde_json::to_value(event).unwrap();
        assert_eq!(line["user_id"], json!(event.user_id()));
        assert_eq!(line["token_id"], json!(event.token_id()));
        if let EventKind::LoggedIn { .. } | EventKind::Replaced { .. } = event.kind() {
            let expires_at = line.as_object_mut().unwrap().remove("expires_at");
            assert!(expires_at.unwrap().as_u64().unwrap() > 1_700_000_000);
        }
        log.lock().unwrap().push(line);
    });
    let manager: TokenManager = builder.build().unwrap();
    let issued = manager
        .set_token_with("al", device("phone").scopes(["a"]))
        .await;
    let (issued, first) = {
        let token = issued.unwrap().token;
        (token.expose_secret().to_owned(), token.id().to_string())
    };
    let replaced = manager.replace_token(
        &issued,
        ReplaceOptions::new()
            .metadata("device", "phone 2")
            .end_others(),
    );
    let _ = replaced.await.unwrap();
    manager.check_token("x").await.unwrap();
    let kept = first.parse().unwrap();
    manager.delete_other_user_tokens("al", &kept).await.unwrap();
    spy.set(Mood::Fails(tower_bearer_session::ErrorKind::Timeout));
    manager.delete_user_tokens("al").await.unwrap_err();
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    let (metadata, later) = (json!({ "device": "phone" }), json!({ "device": "phone 2" }));
    let error = lines.last().unwrap()["error"].clone();
    assert!(error.is_string());
    let expected = json!([
        { "event": "logged_in", "user_id": "al", "token_id": first, "metadata": metadata, "scope": "a" },
        { "event": "replaced", "user_id": "al", "token_id": first, "metadata": later, "scope": "a" },
        { "event": "logged_out_all", "user_id": "al", "kept": first, "sessions": 0 },
        { "event": "refused", "reason": "malformed" },
        { "event": "logged_out_all", "user_id": "al", "kept": first, "sessions": 0 },
        { "event": "failed", "user_id": "al", "operation": "delete_all", "error_kind": "timeout", "error": error },
    ]);
    let sorted = |mut lines: Vec<Value>| {
        lines.sort_by_key(Value::to_string);
        lines
    };
    let Value::Array(expected) = expected else {
        unreachable!()
    };
    assert_eq!(sorted(lines), sorted(expected));
}
