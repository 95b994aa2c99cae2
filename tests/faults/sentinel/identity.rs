//! A server that is where the sentinels say, and is not the one that they watch.

use tower_bearer_session::{RedisStore, SessionStore};

use super::{
    super::everything,
    LONG_TIMEOUT,
    fake::{FakeSentinel, View, url},
    is_unavailable,
};
use crate::{
    harness::fake::{FakeServer, NIL, Reply, array, bulk, error},
    stores::token_id,
};

/// An empty master with this `INFO`.
async fn master(info: String) -> FakeServer {
    let server = FakeServer::start().await;
    server.answer(move |words| -> Reply {
        match words {
            ["GET" | "HGET", ..] => Some(NIL.to_owned()),
            ["ROLE"] => Some(array([bulk("master"), ":0\r\n".to_owned(), array([])])),
            ["INFO", "server"] => Some(info.clone()),
            _ => None,
        }
    });
    server
}

fn info(run: &str, uptime: u64) -> String {
    bulk(&format!(
        "# Server\r\nrun_id:{run}\r\nuptime_in_seconds:{uptime}\r\n"
    ))
}

async fn sentinels(master: &FakeServer, seen: &[Option<(&'static str, u64)>]) -> Vec<FakeSentinel> {
    let mut sentinels = Vec::new();
    for &seen in seen {
        let view = View {
            epoch: 1,
            master: master.port(),
            seen,
            ..View::default()
        };
        sentinels.push(FakeSentinel::start(view).await);
    }
    sentinels
}

/// Such a server knows of no session. That is a fault, and says nothing of any token.
#[tokio::test]
async fn a_server_that_the_sentinels_do_not_watch_is_refused() {
    for seen in [
        &[Some(("watched", 100))][..],
        &[Some(("watched", 9_000)); 3],
        &[Some(("watched", 100)), None, None],
    ] {
        let stranger = master(info("stranger", 3600)).await;
        let sentinels = sentinels(&stranger, seen).await;
        let store = RedisStore::builder(url(&sentinels)).connect_lazy().unwrap();
        for _ in 0..3 {
            let error = store.check("al", &token_id(1)).await.unwrap_err();
            assert!(error.is_fault(), "{error:?}");
        }
        let connecting = RedisStore::builder(url(&sentinels)).connect_timeout(LONG_TIMEOUT / 3);
        let error = connecting.connect().await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
        let text = everything(&error);
        assert!(text.contains("run_id"), "{text}");
        assert!(text.contains(&stranger.port().to_string()), "{text}");
        assert_eq!(stranger.calls("HGET"), 0);
    }
}

/// A server is used if a sentinel has seen this very run of it, if it may have been restarted since it was seen, and if
/// nobody tells.
#[tokio::test]
async fn a_server_that_may_be_the_one_that_the_sentinels_watch_is_used() {
    let denied = error("NOPERM this user has no permissions to run the 'info' command");
    for (info, seen) in [
        (info("this", 3600), &[Some(("this", 0))][..]),
        (
            info("this", 3600),
            &[Some(("other", 0)), Some(("other", 0)), Some(("this", 0))],
        ),
        (info("this", 5), &[Some(("other", 9_000))]),
        (info("this", 3600), &[None]),
        (denied, &[Some(("other", 0))]),
        (bulk("# Server\r\n"), &[Some(("other", 0))]),
    ] {
        let server = master(info.clone()).await;
        let sentinels = sentinels(&server, seen).await;
        let store = super::super::patient_store(&url(&sentinels)).await;
        let checked = store.check("al", &token_id(1)).await;
        assert!(checked.unwrap().is_none(), "{info:?}, {seen:?}");
    }
}
