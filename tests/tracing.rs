//! What `tracing` gets to see. In a process of its own, because a subscriber is for all threads.

#![allow(clippy::unwrap_used)]

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderName, Request, Response,
    header::{ACCEPT, AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    ErrorKind, MemoryStore, OnFull, SessionLayer, TokenManager, TokenOptions,
    middleware::TokenSource, store::Operation, test_util::Faults,
};
use tracing::{Instrument, Level, info, info_span};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// All that `tracing` gets to see, down to TRACE: users, outcomes and latencies, and no token.
#[tokio::test]
async fn traces_tell_everything_but_tokens() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(written.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let faults = Faults::new();
    let store = faults.wrap(MemoryStore::new());
    let manager: TokenManager<String> = TokenManager::builder(store)
        .session_limit(2, OnFull::Reject)
        .load_user(async |id: String| match &*id {
            "broken" => Err("the database is down"),
            _ => Ok(Some(id)),
        })
        .build()
        .unwrap();
    let token = manager.set_token("al", None).await.unwrap();
    let other = manager
        .set_token_with("al", TokenOptions::new())
        .await
        .unwrap()
        .token;
    manager.set_token("al", None).await.unwrap_err();
    assert!(!written.text().contains("WARN"), "a client can cause that");
    let broken = manager.set_token("broken", None).await.unwrap();
    let layer = SessionLayer::new(manager.clone())
        .refresh_below(Duration::from_secs(60))
        .token_sources([
            TokenSource::authorization(),
            TokenSource::cookie("s").unwrap(),
            TokenSource::header("x-s").unwrap(),
            TokenSource::websocket_protocol(),
            TokenSource::query("s").unwrap(),
        ]);
    let inner = service_fn(async |_: Request<()>| Ok::<_, io::Error>(Response::new(())));
    let live = token.expose_secret();
    for text in [
        live,
        &format!("{live}x"),
        other.expose_secret(),
        broken.expose_secret(),
    ] {
        for (name, value) in [
            (AUTHORIZATION, format!("Bearer {text}")),
            (COOKIE, format!("s={text}")),
            (HeaderName::from_static("x-s"), text.to_owned()),
            (SEC_WEBSOCKET_PROTOCOL, format!("bearer, {text}")),
            (ACCEPT, String::new()),
        ] {
            // In one place, and in two.
            for uri in ["/", &format!("/?s={text}")] {
                let request = Request::get(uri).header(&name, &value);
                let request = request.body(()).unwrap();
                layer.layer(inner).oneshot(request).await.unwrap();
            }
        }
    }
    manager
        .refresh_token(token.expose_secret(), None)
        .await
        .unwrap();
    manager.delete_token(token.expose_secret()).await.unwrap();
    manager.check_token(token.expose_secret()).await.unwrap();
    manager.delete_user_tokens("al").await.unwrap();
    faults.fail(ErrorKind::Timeout);
    manager
        .check_token(token.expose_secret())
        .await
        .unwrap_err();

    let text = written.text();
    for expected in [
        "user.id=\"al\"",
        "operation=\"create\"",
        "operation=\"check\"",
        "outcome=\"ok\"",
        "outcome=\"fault\"",
        "outcome=\"refused\"",
        "reason=\"session_limit\"",
        "latency_us=",
        "logged in",
        "refreshed",
        "logged out everywhere",
        "reason=\"malformed\"",
        "reason=\"not_live\"",
        "reason=\"several_tokens\"",
        "kind=Timeout",
        "kind=LoadUser",
    ] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    assert_eq!(
        text.matches("kind=Timeout").count(),
        1,
        "a failure is told once in\n{text}"
    );
    for token in [&token, &other, &broken] {
        let secret = token.expose_secret().rsplit('.').next().unwrap();
        assert!(!text.contains(&secret[..12]), "a token in\n{text}");
    }
}

/// A layer that was forgotten is an error in the log, with the types; the client is not told.
#[tokio::test]
async fn a_forgotten_layer_is_an_error_in_the_log() {
    use axum::{Router, body::Body, routing::get};
    use tower_bearer_session::User;

    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(written.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let manager: TokenManager<String> = TokenManager::builder(MemoryStore::new())
        .user_type()
        .build()
        .unwrap();
    let routes = || Router::new().route("/", get(async |_: User<u16>| ()));
    let layer = SessionLayer::new(manager).optional();
    for (app, expected) in [
        (routes(), "the request has no `User<u16>`"),
        (
            routes().layer(layer),
            "it has a `SessionLayer<alloc::string::String>`",
        ),
    ] {
        let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 500);
        let text = written.text();
        assert!(text.contains("ERROR") && text.contains(expected), "{text}");
    }
}

/// What a request causes is in its span, also what is done by tasks of the manager: logins and logouts, loads, which
/// are in the span of the first request that waits for them, renewals, and undone logins.
#[tokio::test(start_paused = true)]
async fn background_work_is_in_the_span_of_its_request() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(written.clone())
        .finish();
    // Of this thread, on which all tasks run.
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let faults = Faults::new();
    let manager: TokenManager<String> = TokenManager::builder(faults.wrap(MemoryStore::new()))
        .load_user(async |id: String| {
            info!("loading {id}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, io::Error>(Some(id))
        })
        .build()
        .unwrap();
    // What is written while a request with this name is served, and a minute longer.
    let written_by = async |name: &'static str, request: &dyn Fn() -> Work| {
        written.take();
        request().instrument(info_span!("request", name)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let text = written.take();
        let request = format!("request{{name=\"{name}\"}}");
        for line in text.lines() {
            assert!(line.contains(&request), "not in the span: {line}");
        }
        text
    };
    let token = manager
        .set_token("al", Duration::from_secs(600))
        .await
        .unwrap();

    let work = || -> Work {
        let manager = manager.clone();
        Box::pin(async move {
            let token = manager.set_token("bo", None).await.unwrap();
            assert!(manager.delete_token(token.expose_secret()).await.unwrap());
            manager.delete_user_tokens("bo").await.unwrap();
        })
    };
    let text = written_by("session", &work).await;
    for expected in ["logged in", "logged out", "operation=\"delete_all\""] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }

    let work = || -> Work {
        let manager = manager.clone();
        Box::pin(async move {
            drop(manager.refresh_users(["bo", "cy"], None).await);
        })
    };
    let text = written_by("refresh", &work).await;
    assert!(text.contains("loading bo") && text.contains("loading cy"));

    let service = SessionLayer::new(manager.clone())
        .refresh_below(Duration::from_secs(599))
        .layer(service_fn(async |_: Request<()>| {
            Ok::<_, io::Error>(Response::new(()))
        }));
    let work = || -> Work {
        let bearer = format!("Bearer {}", token.expose_secret());
        let request = Request::get("/").header(AUTHORIZATION, bearer);
        let served = service.clone().oneshot(request.body(()).unwrap());
        Box::pin(async move {
            assert_eq!(served.await.unwrap().status(), 200);
        })
    };
    let text = written_by("first", &work).await;
    for expected in ["loading al", "operation=\"put_user\"", "refreshed"] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }

    let work = || -> Work {
        let (manager, faults) = (manager.clone(), faults.clone());
        Box::pin(async move {
            faults
                .on(Operation::Create)
                .lose_next_replies(1, ErrorKind::Timeout);
            faults
                .on(Operation::Delete)
                .fail_next(1, ErrorKind::Timeout);
            manager.set_token("bo", None).await.unwrap_err();
        })
    };
    let text = written_by("undone", &work).await;
    assert!(text.contains("operation=\"delete\""), "{text}");

    let work = || -> Work {
        let (manager, faults) = (manager.clone(), faults.clone());
        Box::pin(async move {
            faults.heal();
            faults.delay_replies(Duration::from_secs(2));
            let login = manager.set_token("bo", None);
            let abandoned = tokio::time::timeout(Duration::from_secs(1), login).await;
            abandoned.unwrap_err();
            let logout = manager.delete_user_tokens("al");
            let abandoned = tokio::time::timeout(Duration::from_secs(1), logout).await;
            abandoned.unwrap_err();
        })
    };
    let text = written_by("abandoned", &work).await;
    for expected in ["operation=\"delete\"", "logged out everywhere"] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }

    // The caller goes away before the task of its login has run, which then needs a single poll.
    let work = || -> Work {
        let (manager, faults) = (manager.clone(), faults.clone());
        Box::pin(async move {
            faults.heal();
            tokio::select! {
                biased;
                _ = manager.set_token("bo", None) => panic!("a login without its task"),
                () = std::future::ready(()) => {}
            }
        })
    };
    let text = written_by("abandoned at once", &work).await;
    assert!(text.contains("operation=\"delete\""), "{text}");
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()>>>;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }

    fn take(&self) -> String {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(std::mem::take(&mut *bytes)).unwrap()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
