//! What a page of users costs a MySQL store.

use tower_bearer_session::{MySqlStore, SessionStore};

use crate::{
    harness::MariaDb,
    mysql_store::fill,
    stores::{listed_users, log_in, token_id},
};

/// A user with very many sessions costs a page no more than a thousand rows, and the next page begins after that user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_a_thousand_rows() {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).purge_interval(None);
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    mysql.sql(&fill("tbs_sessions", "bo", 100_000)).await;
    for user_id in ["al", "cy"] {
        log_in(&store, user_id, &token_id(1)).await;
    }
    let (mut users, mut after) = (Vec::new(), None);
    loop {
        let before = mysql.status().await;
        let page = store.list_users(after.as_ref()).await.unwrap();
        let now = mysql.status().await;
        let read: u64 = [
            "Handler_read_next",
            "Handler_read_key",
            "Handler_read_first",
        ]
        .iter()
        .map(|name| now[*name] - before[*name])
        .sum();
        assert!(read < 3000, "{read} rows");
        users.extend(page.users);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(users, ["al", "bo", "cy"]);
}

/// A row that no version of this crate has written is passed over, even at the end of a page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_no_user_are_passed_over() {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).purge_interval(None);
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    log_in(&store, "al", &token_id(1)).await;
    let foreign = fill("tbs_sessions", "x", 2000).replace("'x',", "X'FF',");
    mysql.sql(&foreign).await;
    log_in(&store, "zo", &token_id(1)).await;
    let users: Vec<_> = listed_users(&store).await.into_iter().collect();
    assert_eq!(users, ["al", "zo"]);
}
