//! Logouts that were done although their replies got lost.

use std::time::Duration;

use tower_bearer_session::{Error, MySqlStore, SessionStore};

use super::eventually;
use crate::{
    harness::{MariaDb, Proxy},
    stores::{is_live, log_in, token_id},
};

/// Lets the server do a write on a session of "al" and then loses the reply; returns what the caller is told.
async fn without_its_reply<T>(
    write: impl AsyncFn(&MySqlStore) -> Result<T, Error>,
) -> Result<T, Error> {
    let mysql = MariaDb::start().await;
    let proxy = Proxy::start(mysql.port()).await;
    let patient = |url: String| {
        let builder = MySqlStore::builder(url).deadline(Duration::from_secs(30));
        builder.connect_timeout(Duration::from_secs(30)).connect()
    };
    let url = format!("mysql://app:hunter2@127.0.0.1:{}/sessions", proxy.port());
    let (store, direct) = (
        patient(url).await.unwrap(),
        patient(mysql.url()).await.unwrap(),
    );
    direct.migrate().await.unwrap();
    // Prepares the statements.
    write(&store).await?;
    for n in 1..4 {
        log_in(&direct, "al", &token_id(n)).await;
    }
    proxy.set_delay(Duration::from_millis(300));
    let (answer, ()) = tokio::join!(write(&store), async {
        eventually("it is done", async || {
            !is_live(&direct, "al", &token_id(1)).await
        })
        .await;
        proxy.set_delay(Duration::ZERO);
        proxy.drop_connections().await;
    });
    answer
}

/// The caller is told of a logout, because the store cannot tell that there was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_whose_reply_was_lost_counts_as_one() {
    let logout = async |store: &MySqlStore| store.delete("al", &token_id(1)).await;
    assert!(without_its_reply(logout).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_of_all_sessions_whose_reply_was_lost_keeps_its_count() {
    let logout = async |store: &MySqlStore| store.delete_all("al", None).await;
    assert_eq!(without_its_reply(logout).await.unwrap(), 3);
}
