//! A server or an account that stops fitting the store while a service runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tower_bearer_session::{ErrorKind, Event, MySqlStore};

use super::eventually;
use crate::{
    harness::MariaDb,
    http::{Client, Server, app, builder},
};

/// The account of the service, which has its privileges table by table: a change of these takes effect at once.
const ACCOUNT: &str = "tested";
const TABLES: [&str; 5] = ["schema", "sessions", "cutoffs", "users", "slots"];
const PATIENCE: Duration = Duration::from_secs(30);

type Failures = Arc<Mutex<Vec<(&'static str, ErrorKind)>>>;

/// A service whose database was taken away or whose account lost a privilege answers 500: waiting does not help, an
/// operator has to act. Nobody is anonymous or logged out meanwhile, and afterwards the service works without a
/// restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_set_up_is_a_500_until_it_is() {
    let mysql = MariaDb::start().await;
    let operator = MySqlStore::connect(mysql.url()).await.unwrap();
    operator.migrate().await.unwrap();
    let account = format!("CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'");
    mysql.sql(&account).await;
    for table in TABLES {
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON tbs_{table} TO {ACCOUNT}");
        mysql.sql(&grant).await;
    }
    let failures = Failures::default();
    let server = service(&mysql, &failures).await;
    let client = server.login("al", "phone").await;
    assert_eq!(client.status("/me").await, 200);
    // Without a database, nobody can connect.
    let mut statements = mysql.connect().await.unwrap();
    for (taken, given) in [
        (
            format!("REVOKE SELECT ON tbs_sessions FROM {ACCOUNT}"),
            Some(format!("GRANT SELECT ON tbs_sessions TO {ACCOUNT}")),
        ),
        (
            "RENAME TABLE tbs_users TO tbs_gone".to_owned(),
            Some("RENAME TABLE tbs_gone TO tbs_users".to_owned()),
        ),
        // The migration gives back what is empty anyway.
        ("DROP TABLE tbs_cutoffs".to_owned(), None),
    ] {
        let change = sqlx::raw_sql(AssertSqlSafe(&*taken));
        change.execute(&mut statements).await.unwrap();
        assert_answers_500(&client, &failures, &taken).await;
        match &given {
            Some(given) => {
                mysql.sql(given).await;
            }
            None => operator.migrate().await.unwrap(),
        }
        eventually(&format!("200 after {taken}"), async || {
            client.status("/me").await == 200
        })
        .await;
    }
    // Now the sessions are really gone.
    let change = sqlx::raw_sql("DROP DATABASE sessions");
    change.execute(&mut statements).await.unwrap();
    assert_answers_500(&client, &failures, "without a database").await;
    let change = sqlx::raw_sql("CREATE DATABASE sessions");
    change.execute(&mut statements).await.unwrap();
    operator.migrate().await.unwrap();
    eventually("401 for a session that is gone", async || {
        client.status("/me").await == 401
    })
    .await;
    let client = server.login("al", "phone").await;
    assert_eq!(client.status("/me").await, 200);
}

/// A password that is wrong for a while is an outage: it is usual while passwords are rotated, and passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_wrong_for_a_while_is_a_503() {
    let mysql = MariaDb::start().await;
    let operator = MySqlStore::connect(mysql.url()).await.unwrap();
    operator.migrate().await.unwrap();
    let account = format!(
        "CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO {ACCOUNT}"
    );
    mysql.sql(&account).await;
    let failures = Failures::default();
    let server = service(&mysql, &failures).await;
    let client = server.login("al", "phone").await;
    let set_password = |password| format!("ALTER USER {ACCOUNT} IDENTIFIED BY '{password}'");
    mysql.sql(&set_password("hunter3")).await;
    // Open connections go on, until they are renewed.
    eventually("503 with a wrong password", async || {
        let answer = client.get("/me").await;
        let status = answer.status();
        assert!([200, 503].contains(&status.as_u16()), "{status}");
        assert_eq!(answer.headers().contains_key(RETRY_AFTER), status == 503);
        status == 503
    })
    .await;
    let told = failures.lock().unwrap().clone();
    assert_eq!(told, [("check", ErrorKind::Unavailable)]);
    mysql.sql(&set_password("hunter2")).await;
    assert_eq!(client.status("/me").await, 200);
}

/// A service of the account that gives up late and writes down its failures.
async fn service(mysql: &MariaDb, failures: &Failures) -> Server {
    let store = MySqlStore::builder(mysql.url().replace("app", ACCOUNT))
        .purge_interval(None)
        .connect_timeout(PATIENCE)
        .deadline(PATIENCE);
    let heard = Arc::clone(failures);
    let manager = builder(store.connect().await.unwrap()).on_event(move |event| {
        if let Event::Failed {
            operation, error, ..
        } = event
        {
            heard.lock().unwrap().push((operation, error.kind()));
        }
    });
    Server::axum(app(manager.build().unwrap())).await
}

/// Waits until checks fail, and then asks for all that needs the store.
async fn assert_answers_500(client: &Client, failures: &Failures, why: &str) {
    failures.lock().unwrap().clear();
    eventually(&format!("500 after {why}"), async || {
        let status = client.status("/me").await;
        assert!([200, 500].contains(&status), "{status} after {why}");
        status == 500
    })
    .await;
    for answer in [
        client.get("/me").await,
        // The layer of this route is optional.
        client.get("/").await,
        client.post("/logout", &json!(null)).await,
    ] {
        assert_eq!(answer.status(), 500, "{why}");
        assert!(!answer.headers().contains_key(RETRY_AFTER), "{why}");
        assert!(!answer.headers().contains_key(WWW_AUTHENTICATE), "{why}");
    }
    let told = failures.lock().unwrap();
    assert!(told.contains(&("check", ErrorKind::Config)), "{told:?}");
    assert!(
        told.iter().all(|(_, kind)| *kind == ErrorKind::Config),
        "{told:?} after {why}"
    );
}
