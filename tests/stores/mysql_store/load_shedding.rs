//! A server that gets more checks than it can answer in time.

use std::time::{Duration, Instant};

use tokio::{task::JoinSet, time::sleep};
use tower_bearer_session::{ErrorKind, MySqlStore, SessionStore};

use crate::{
    harness::{MariaDb, Proxy},
    stores::{HOUR, is_live, log_in, session, token_id},
};

/// What has become of checks.
#[derive(Debug, Default)]
struct Checks {
    answered: usize,
    refused: usize,
    late: usize,
}

const CONNECTIONS: u32 = 2;
/// A check on each connection takes twice as long.
const WAY: Duration = Duration::from_millis(10);
/// Many times what the connections can do.
const CHECKS_PER_SECOND: u32 = 1000;
const SECONDS: u32 = 3;

async fn store(proxy: &Proxy, sheds_load: bool) -> MySqlStore {
    let url = format!("mysql://app:hunter2@127.0.0.1:{}/sessions", proxy.port());
    let builder = MySqlStore::builder(url).max_connections(CONNECTIONS);
    builder.load_shedding(sheds_load).connect().await.unwrap()
}

async fn overload(store: &MySqlStore) -> Checks {
    let mut checks = JoinSet::new();
    let start = Instant::now();
    for n in 0..CHECKS_PER_SECOND * SECONDS {
        let begin = Duration::from_secs(1) * n / CHECKS_PER_SECOND;
        sleep(begin.saturating_sub(start.elapsed())).await;
        let store = store.clone();
        checks.spawn(async move { store.check("al", &token_id(1)).await });
    }
    let mut tally = Checks::default();
    for check in checks.join_all().await {
        match check {
            Ok(checked) => {
                assert!(checked.is_some());
                tally.answered += 1;
            }
            Err(error) if error.kind() == ErrorKind::Timeout => tally.late += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                assert!(error.to_string().contains("overloaded"), "{error:?}");
                tally.refused += 1;
            }
        }
    }
    tally
}

/// Checks that would be answered too late are refused, so that others are answered in time. Without that, all wait until
/// hardly any time is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_does_not_make_all_checks_late() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let stores = [store(&proxy, true).await, store(&proxy, false).await];
    stores[0].migrate().await.unwrap();
    log_in(&stores[0], "al", &token_id(1)).await;
    proxy.set_delay(WAY);
    let [shedding, waiting] = [overload(&stores[0]).await, overload(&stores[1]).await];
    println!("with load shedding: {shedding:?}, without: {waiting:?}");
    assert!(shedding.refused > shedding.late, "{shedding:?}");
    assert_eq!(waiting.refused, 0, "{waiting:?}");
    assert!(shedding.answered > waiting.answered);
}

/// However many checks wait for a connection, the others do not wait for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_goes_before_checks_that_wait() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    for sheds_load in [false, true] {
        let store = store(&proxy, sheds_load).await;
        store.migrate().await.unwrap();
        log_in(&store, "al", &token_id(1)).await;
        log_in(&store, "bo", &token_id(1)).await;
        proxy.set_delay(WAY);
        let mut checks = JoinSet::new();
        for _ in 0..1000 {
            let store = store.clone();
            checks.spawn(async move { drop(store.check("al", &token_id(1)).await) });
        }
        tokio::task::yield_now().await;
        assert!(store.refresh("bo", &token_id(1), HOUR).await.unwrap());
        assert!(store.delete("bo", &token_id(1)).await.unwrap());
        assert!(!checks.is_empty());
        checks.join_all().await;
        proxy.set_delay(Duration::ZERO);
    }
}

/// Logins, refreshes and logouts that come in between are done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_checks_are_refused() {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let store = store(&proxy, true).await;
    store.migrate().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    proxy.set_delay(WAY);
    let others = async {
        sleep(Duration::from_secs(1)).await;
        for n in 2..6 {
            let (new, id) = (session(HOUR), token_id(n));
            store.create("bo", &id, &new, None).await.unwrap();
            assert!(store.refresh("bo", &id, HOUR).await.unwrap());
            assert!(store.delete("bo", &id).await.unwrap());
        }
    };
    let (checks, ()) = tokio::join!(overload(&store), others);
    println!("{checks:?}");
    assert!(checks.refused > 0, "{checks:?}");
    // It ends with the overload.
    proxy.set_delay(Duration::ZERO);
    sleep(Duration::from_secs(4)).await;
    assert!(is_live(&store, "al", &token_id(1)).await);
}
