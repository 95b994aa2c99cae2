//! Accounts that cannot log in for a while.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_bearer_session::{ErrorKind, MySqlStore, SessionStore};

use crate::{
    everything,
    harness::MariaDb,
    stores::{is_live, log_in, token_id},
};

/// How long anything may take that has to happen, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);
/// No operation begins on a connection that is older, as the documentation of the store promises.
const MAX_AGE: Duration = Duration::from_secs(5);
/// The account of the store under test.
const ACCOUNT: &str = "tested";

/// An account whose password is changed, or that is locked, is an outage: its store reports so without waiting for the
/// deadline as soon as the connections that were open are too old, and works again with the first operation after the
/// change is undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_login_is_an_outage_until_it_is_granted() {
    let mysql = MariaDb::start().await;
    let operator = MySqlStore::connect(mysql.url()).await.unwrap();
    operator.migrate().await.unwrap();
    log_in(&operator, "al", &token_id(1)).await;
    let password = "ALTER USER tested IDENTIFIED BY 'hunter2'";
    let account = format!(
        "CREATE USER {ACCOUNT} IDENTIFIED BY 'hunter2'; GRANT ALL ON sessions.* TO {ACCOUNT}"
    );
    mysql.sql(&account).await;
    let store = MySqlStore::builder(mysql.url().replace("app", ACCOUNT))
        .purge_interval(None)
        .connect_timeout(100 * LONG_TIMEOUT)
        .deadline(100 * LONG_TIMEOUT);
    let store = store.connect().await.unwrap();
    for (denied, number, granted) in [
        // Access denied.
        (
            "ALTER USER tested IDENTIFIED BY 'hunter3'",
            "1045",
            password,
        ),
        // Access denied, to an account without a password.
        (
            "ALTER USER tested IDENTIFIED VIA unix_socket",
            "1698",
            password,
        ),
        // Account locked.
        (
            "ALTER USER tested ACCOUNT LOCK",
            "4151",
            "ALTER USER tested ACCOUNT UNLOCK",
        ),
    ] {
        assert!(is_live(&store, "al", &token_id(1)).await);
        mysql.sql(denied).await;
        sleep(MAX_AGE).await;
        for n in [1, 2] {
            let check = timeout(LONG_TIMEOUT, store.check("al", &token_id(n))).await;
            let error = check.expect("an answer before the deadline").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{denied}");
            assert!(everything(&error).contains(number), "{error:?}, {denied}");
        }
        mysql.sql(granted).await;
    }
    assert!(is_live(&store, "al", &token_id(1)).await);
}
