use tower_bearer_session::{ErrorKind, MySqlStore, MySqlStoreBuilder, SessionStore};

use crate::harness::{MariaDb, Pki};

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
