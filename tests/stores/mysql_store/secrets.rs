use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_bearer_session::{
    ErrorKind, MySqlStore, MySqlStoreBuilder, OnFull, SessionStore, store::PutMode,
};
use tracing::Level;

use super::{
    everything,
    many_sessions::fill,
    operations::{assert_all_succeed, operations},
};
use crate::{
    harness::{MariaDb, Pki},
    stores::{HOUR, limit, log_in, session, token_id},
};

/// Neither a store nor its builder shows a password.
#[tokio::test]
async fn nothing_shows_the_password() {
    let mysql = MariaDb::start().await;
    let builder: MySqlStoreBuilder = MySqlStore::builder(mysql.url());
    let store = builder.clone().connect().await.unwrap();
    for text in [
        format!("{builder:?} {builder:#?}"),
        format!("{:?}", builder.password("hunter2")),
        format!("{store:?} {store:#?}"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("tbs_"), "{text}");
    }
}

/// A password in a wrong place of the URL is not shown either, whatever the server answers.
#[tokio::test]
async fn no_error_shows_a_password_in_a_wrong_place() {
    let mysql = MariaDb::start().await;
    let port = mysql.port();
    for (builder, kind) in [
        (
            MySqlStore::builder(format!("mysql://hunter2@127.0.0.1:{port}/sessions")),
            ErrorKind::Unavailable,
        ),
        (
            MySqlStore::builder(format!("mysql://hunter2:app@127.0.0.1:{port}/sessions")),
            ErrorKind::Unavailable,
        ),
        (
            MySqlStore::builder(format!("mysql://app:hunter2@127.0.0.1:{port}/hunter2")),
            ErrorKind::Config,
        ),
    ] {
        let builder = builder.connect_timeout(Duration::from_secs(30));
        assert_hides(&format!("{builder:?}"), "hunter2");
        let error = builder.connect().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_hides(&everything(&error), "hunter2");
    }
}

/// The server's message may quote the values of a statement. No error passes it on, whatever its number is.
#[tokio::test]
async fn no_error_shows_the_message_of_the_server() {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).purge_interval(None);
    let store = store.deadline(Duration::from_secs(30));
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON tbs_users FOR EACH ROW BEGIN \
         DECLARE number INT DEFAULT CAST(NEW.value AS UNSIGNED); \
         DECLARE message TEXT DEFAULT CONCAT('refused: ', NEW.user_id); \
         SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = number, MESSAGE_TEXT = message; \
         END";
    mysql.sql(trigger).await;
    // The ranges of the numbers that MySQL and MariaDB give to the errors of a server.
    for number in (1000..2000).chain(3000..3200).chain(4000..4200) {
        let number = number.to_string();
        let put = store.put_user("hunter2", number.as_bytes(), HOUR, PutMode::Replace);
        let error = put.await.expect_err("a refused write");
        assert_hides(&everything(&error), "hunter2");
    }
}

/// Errors that quote the value of a column do not reach the caller.
#[tokio::test]
async fn no_error_shows_a_value_of_a_column() {
    let mysql = MariaDb::start().await;
    let store = MySqlStore::builder(mysql.url()).deadline(Duration::from_secs(30));
    let store = store.connect().await.unwrap();
    store.migrate().await.unwrap();
    for user in ["al", "bo"] {
        let put = store.put_user(user, user.as_bytes(), HOUR, PutMode::Replace);
        assert!(put.await.unwrap());
    }
    log_in(&store, "al", &token_id(1)).await;
    for change in [
        "ALTER TABLE tbs_sessions ADD CHECK (metadata IS NULL OR metadata <> 'hunter2')",
        "ALTER TABLE tbs_sessions MODIFY user_id VARBINARY(5) NOT NULL",
        "ALTER TABLE tbs_users ADD UNIQUE KEY (value(20))",
    ] {
        mysql.sql(change).await;
    }
    let mut new = session(HOUR);
    new.metadata = Some("hunter2".into());
    let put = |expected: &'static [u8]| {
        let mode = PutMode::IfUnchanged(Some(expected));
        store.put_user("al", b"hunter2", HOUR, mode)
    };
    let mut errors = vec![
        store.create("al", &token_id(2), &new, None).await.map(drop),
        store
            .create("hunter2", &token_id(2), &session(HOUR), None)
            .await
            .map(drop),
    ];
    let taken = store.put_user("bo", b"hunter2", HOUR, PutMode::Replace);
    assert!(taken.await.unwrap());
    errors.push(put(b"al").await.map(drop));
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
        assert_hides(&everything(&error), "hunter2");
        assert_hides(&everything(&error), "68756E74657232");
    }
}

/// No log of the store or its driver shows a statement, a user id or a password.
#[tokio::test]
async fn no_log_shows_a_statement_or_its_values() {
    let mysql = MariaDb::start().await;
    let operator = MySqlStore::connect(mysql.url()).await.unwrap();
    operator.migrate().await.unwrap();
    mysql.sql(&fill("tbs_sessions", "user", 600)).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let store = MySqlStore::connect(mysql.url()).await.unwrap();
    assert_all_succeed(&store).await;
    let (id, new) = (token_id(u128::MAX), session(HOUR));
    let limit = limit(2, OnFull::EvictOldest);
    let created = store.create("user", &id, &new, limit).await.unwrap();
    assert!(!created.evicted.is_empty());
    store.delete_all("user", None).await.unwrap();
    let other = MySqlStore::builder(mysql.url()).table_prefix("user_");
    let other = other.connect().await.unwrap();
    for (_, outcome) in operations(&other).await {
        outcome.unwrap_err();
    }
    other.migrate().await.unwrap();
    let text = log.text();
    for secret in ["hunter2", "user", "75736572", "tbs_"] {
        assert_hides(&text, secret);
    }
    // The driver would log the statements of a connection that is not the store's.
    mysql.sql("SELECT 'logged'").await;
    assert!(log.text().contains("logged"));
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[track_caller]
fn assert_hides(text: &str, secret: &str) {
    assert!(!text.contains(secret), "{text}");
}

/// An account that must use TLS gets in with it and not without it; a certificate that nobody vouches for, or of
/// another host, is refused.
#[tokio::test]
async fn tls() {
    let pki = Pki::for_hosts(&["localhost"]);
    let mysql = MariaDb::start_tls(&pki).await;
    mysql
        .sql("CREATE USER secure IDENTIFIED BY 'hunter2' REQUIRE SSL")
        .await;
    mysql.sql("GRANT ALL ON sessions.* TO secure").await;
    let builder = |host: &str, mode: &str| {
        let url = format!(
            "mysql://secure:hunter2@{host}:{}/sessions?ssl-mode={mode}",
            mysql.port()
        );
        MySqlStore::builder(url)
    };
    let secure = builder("localhost", "VERIFY_IDENTITY").tls_roots(pki.ca());
    let store = secure.connect().await.unwrap();
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    let by_method = builder("localhost", "DISABLED")
        .tls(true)
        .tls_roots(pki.ca());
    by_method.connect().await.unwrap();

    for refused in [
        builder("localhost", "DISABLED"),
        builder("localhost", "VERIFY_IDENTITY"),
        builder("localhost", "VERIFY_IDENTITY").tls_roots(Pki::new().ca()),
        builder("127.0.0.1", "VERIFY_IDENTITY").tls_roots(pki.ca()),
    ] {
        let error = refused.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
