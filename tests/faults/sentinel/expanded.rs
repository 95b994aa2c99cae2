//! One name for all sentinels.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::time::sleep;
use tower_bearer_session::{RedisStoreBuilder, SessionStore};

use super::{
    super::eventually,
    LONG_TIMEOUT, POLL,
    fake::{FakeSentinel, View},
};
use crate::{
    harness::fake::{FakeServer, NIL, Reply, array, bulk},
    stores::token_id,
};

const NAME: &str = "sentinels.test";

/// An empty master.
async fn master() -> FakeServer {
    let server = FakeServer::start().await;
    server.answer(|words| -> Reply {
        match words {
            ["GET" | "HGET", ..] => Some(NIL.to_owned()),
            ["INFO", "server"] => Some(bulk("# Server\r\n")),
            ["ROLE"] => Some(array([bulk("master"), ":0\r\n".to_owned(), array([])])),
            _ => None,
        }
    });
    server
}

async fn sentinel(epoch: u64, master: &FakeServer) -> FakeSentinel {
    let master = master.port();
    FakeSentinel::start(View {
        epoch,
        master,
        ..View::default()
    })
    .await
}

/// Where the name leads to.
type Found = Arc<Mutex<Vec<SocketAddr>>>;

fn addresses(sentinels: &[&FakeSentinel]) -> Vec<SocketAddr> {
    let port = |sentinel: &&FakeSentinel| sentinel.server.port();
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    sentinels.iter().map(port).map(local).collect()
}

fn builder(found: &Found) -> RedisStoreBuilder {
    let found = Arc::clone(found);
    RedisStoreBuilder::sentinel([NAME], "mymaster")
        .resolve_with(move |host, port| {
            let found = match &*host {
                NAME => found.lock().unwrap().clone(),
                ip => vec![SocketAddr::new(ip.parse().unwrap(), port)],
            };
            async move { Ok::<_, Infallible>(found) }
        })
        .deadline(LONG_TIMEOUT)
}

/// Each of them has a voice: those that know of the latest failover are heard.
#[tokio::test]
async fn a_name_for_all_sentinels_is_expanded() {
    let (old, new) = (master().await, master().await);
    let behind = sentinel(1, &old).await;
    let (second, third) = (sentinel(2, &new).await, sentinel(2, &new).await);
    let all = [&behind, &second, &third];
    let found = Arc::new(Mutex::new(addresses(&all)));
    for _ in 0..5 {
        let store = builder(&found).expand_names(true).connect().await.unwrap();
        assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
    }
    // The latest failover is what one that is behind has not heard of.
    assert_eq!((old.calls("HGET"), new.calls("HGET")), (0, 5));
    assert!(all.iter().all(|sentinel| sentinel.asked() > 0));
}

/// Without that, the name is one sentinel.
#[tokio::test]
async fn a_name_is_one_sentinel() {
    let master = master().await;
    let (first, second) = (sentinel(1, &master).await, sentinel(1, &master).await);
    let found = Arc::new(Mutex::new(addresses(&[&first, &second])));
    let store = builder(&found).connect().await.unwrap();
    assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
    sleep(2 * POLL).await;
    let asked = [&first, &second].map(|sentinel| sentinel.asked() > 0);
    assert!(asked[0] != asked[1], "{asked:?}");
}

/// Sentinels that are replaced, as pods are: the new ones are asked, and the old ones have no voice any more.
#[tokio::test]
async fn a_name_that_leads_to_other_sentinels_is_followed() {
    let (old, new) = (master().await, master().await);
    let gone = [sentinel(1, &old).await, sentinel(1, &old).await];
    let found = Arc::new(Mutex::new(addresses(&gone.each_ref())));
    let store = builder(&found).expand_names(true).connect().await.unwrap();
    assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
    assert_eq!(old.calls("HGET"), 1);

    let next = sentinel(2, &new).await;
    *found.lock().unwrap() = addresses(&[&next]);
    eventually("a check at the new master", async || {
        store.check("al", &token_id(1)).await.is_ok() && new.calls("HGET") > 0
    })
    .await;
    let before = gone.each_ref().map(FakeSentinel::asked);
    sleep(3 * POLL).await;
    assert_eq!(gone.each_ref().map(FakeSentinel::asked), before);

    // Nobody knows the name for a while: whom it led to is asked as before.
    found.lock().unwrap().clear();
    let before = next.asked();
    eventually("questions", async || next.asked() > before + 8).await;
    assert!(store.check("al", &token_id(1)).await.unwrap().is_none());
}
