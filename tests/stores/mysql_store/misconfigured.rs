//! A server or an account that stops fitting the store while a service runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{
    Method,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use tower_bearer_session::{ErrorKind, EventKind, MySqlStore};

use super::{TABLES, eventually};
use crate::{
    app::{Client, Server, app, builder},
    harness::MariaDb,
};

/// The account of the service, which has its privileges table by table: a change of these takes effect at once.
const ACCOUNT: &str = "tested";
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

type Failures = Arc<Mutex<Vec<(&'static str, ErrorKind)>>>;

/// A request that needs the store.
type Request = (Method, &'static str);

const ME: Request = (Method::GET, "/me");
/// The layer of this route is optional.
const HOME: Request = (Method::GET, "/");
/// Without a token, so that nothing is checked.
const LOGIN: Request = (Method::POST, "/login");
const LIST: Request = (Method::GET, "/sessions");
const REFRESH: Request = (Method::POST, "/refresh");
const LOGOUT: Request = (Method::POST, "/logout");
const LOGOUT_OTHERS: Request = (Method::POST, "/logout/others");
const LOGOUT_EVERYWHERE: Request = (Method::POST, "/logout/everywhere");

/// All requests with a token, which the layer checks first.
const CHECKED: [Request; 7] = [
    ME,
    HOME,
    LIST,
    REFRESH,
    LOGOUT,
    LOGOUT_OTHERS,
    LOGOUT_EVERYWHERE,
];

/// While a table or a privilege is missing, the requests that need it are answered with 500: waiting does not help, an
/// operator has to act. No session is anonymous or logged out meanwhile, and afterwards the service works without a
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
    let logout_of_all = [LOGOUT_OTHERS, LOGOUT_EVERYWHERE];
    let with = |requests: &[Request], more: &[Request]| [requests, more].concat();
    for (table, privilege, failing) in [
        ("sessions", None, with(&CHECKED, &[LOGIN])),
        ("cutoffs", None, with(&CHECKED, &[LOGIN])),
        ("users", None, CHECKED.to_vec()),
        ("slots", None, with(&logout_of_all, &[LOGIN])),
        ("sessions", Some("SELECT"), with(&CHECKED, &[LOGIN])),
        ("cutoffs", Some("SELECT"), with(&CHECKED, &[LOGIN])),
        ("users", Some("SELECT"), CHECKED.to_vec()),
        ("slots", Some("SELECT"), with(&logout_of_all, &[LOGIN])),
        ("sessions", Some("INSERT"), vec![LOGIN]),
        ("sessions", Some("UPDATE"), vec![LOGIN, REFRESH]),
        ("sessions", Some("DELETE"), with(&logout_of_all, &[LOGOUT])),
    ] {
        let (taken, given) = match privilege {
            None => (
                format!("RENAME TABLE tbs_{table} TO gone"),
                format!("RENAME TABLE gone TO tbs_{table}"),
            ),
            Some(privilege) => (
                format!("REVOKE {privilege} ON tbs_{table} FROM {ACCOUNT}"),
                format!("GRANT {privilege} ON tbs_{table} TO {ACCOUNT}"),
            ),
        };
        mysql.sql(&taken).await;
        assert_answers_500(&server, &client, &failures, &failing, &taken).await;
        mysql.sql(&given).await;
        for request in [ME, LOGIN] {
            let answer = send(&server, &client, &request).await;
            assert_eq!(answer.status(), 200, "{request:?} after {given}");
        }
    }
    // A migration creates the table of cutoffs only when there are no sessions.
    mysql.sql("DROP TABLE tbs_cutoffs").await;
    let error = operator.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    let everything = with(&CHECKED, &[LOGIN]);
    let why = "the cutoffs were dropped";
    assert_answers_500(&server, &client, &failures, &everything, why).await;
    mysql.sql("DELETE FROM tbs_sessions").await;
    operator.migrate().await.unwrap();
    assert_eq!(client.status("/me").await, 401);
    let client = server.login("al", "phone").await;
    assert_eq!(client.status("/me").await, 200);
    // Without a database, nobody can connect.
    let mut statements = mysql.connect().await.unwrap();
    let change = sqlx::raw_sql("DROP DATABASE sessions");
    change.execute(&mut statements).await.unwrap();
    let why = "the database was dropped";
    assert_answers_500(&server, &client, &failures, &everything, why).await;
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

/// A service with the account [`ACCOUNT`] and long timeouts, which records the failures of its store.
async fn service(mysql: &MariaDb, failures: &Failures) -> Server {
    let store = MySqlStore::builder(mysql.url().replace("app", ACCOUNT))
        .purge_interval(None)
        .connect_timeout(LONG_TIMEOUT)
        .deadline(LONG_TIMEOUT);
    let heard = Arc::clone(failures);
    let manager = builder(store.connect().await.unwrap()).on_event(move |event| {
        if let EventKind::Failed {
            operation, error, ..
        } = event.kind()
        {
            heard.lock().unwrap().push((operation, error.kind()));
        }
    });
    Server::axum(app(manager.build().unwrap())).await
}

/// Sends all of these requests, and asserts that each is answered with 500 because of a configuration error.
async fn assert_answers_500(
    server: &Server,
    client: &Client,
    failures: &Failures,
    requests: &[Request],
    why: &str,
) {
    failures.lock().unwrap().clear();
    for request in requests {
        let answer = send(server, client, request).await;
        assert_eq!(answer.status(), 500, "{request:?}: {why}");
        assert!(!answer.headers().contains_key(RETRY_AFTER), "{why}");
        assert!(!answer.headers().contains_key(WWW_AUTHENTICATE), "{why}");
    }
    let failures = failures.lock().unwrap();
    assert_eq!(failures.len(), requests.len(), "{failures:?}: {why}");
    assert!(
        failures.iter().all(|(_, kind)| *kind == ErrorKind::Config),
        "{failures:?}: {why}"
    );
}

async fn send(server: &Server, client: &Client, request: &Request) -> reqwest::Response {
    let (method, path) = request.clone();
    let login = json!({"user": "bo"});
    let (client, body) = match *request == LOGIN {
        true => (&server.client(), Some(&login)),
        false => (client, None),
    };
    client.send(method, path, body).await
}
