use std::{fmt, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

use self::url::Target;
use super::{MySqlStore, client::Client, pool::Pool, purge, sql::Sql};
use crate::{
    Error,
    store::{
        admission::Admission,
        config::{check_waits, config_error},
    },
};

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "mysql-tls")]
mod tls;
mod url;

/// Configures a [`MySqlStore`]; created by [`MySqlStore::builder`].
///
/// [`connect`](Self::connect) reports invalid settings.
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct MySqlStoreBuilder {
    target: Result<Target, Error>,
    username: Option<String>,
    password: Option<String>,
    with_tls: Option<bool>,
    tls_roots: Option<Vec<u8>>,
    table_prefix: String,
    max_connections: u32,
    connect_timeout: Duration,
    deadline: Duration,
    sheds_load: bool,
    purge_interval: Option<Duration>,
}

impl MySqlStoreBuilder {
    pub(super) fn from_url(url: &str) -> Self {
        Self {
            target: Target::parse(url),
            username: None,
            password: None,
            with_tls: None,
            tls_roots: None,
            table_prefix: String::from("tbs_"),
            max_connections: 10,
            connect_timeout: Duration::from_secs(1),
            deadline: Duration::from_millis(500),
            sheds_load: true,
            purge_interval: Some(Duration::from_secs(60)),
        }
    }

    /// The account to log in as. Default: the user in the URL.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password to log in with. Default: the password in the URL.
    ///
    /// MySQL's `caching_sha2_password` accepts a password only over TLS.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Whether to use TLS. Default: whether the URL has `ssl-mode=VERIFY_IDENTITY`.
    ///
    /// The server's certificate is verified against the host in the URL.
    #[cfg(feature = "mysql-tls")]
    pub fn tls(mut self, tls: bool) -> Self {
        self.with_tls = Some(tls);
        self
    }

    /// Additional trusted root certificates, in PEM, besides Mozilla's. Default: none.
    #[cfg(feature = "mysql-tls")]
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls_roots = Some(pem.into());
        self
    }

    /// The prefix of the table names. Default: `tbs_`.
    ///
    /// All services that share sessions must use the same prefix: 1 to 32 ASCII letters, digits and underscores. Only
    /// services with the same user type *and* the same user loader can share a prefix.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.table_prefix = prefix.into();
        self
    }

    /// The maximum number of connections. Default: 10.
    ///
    /// One more opens for [`migrate`](MySqlStore::migrate). A connection in use is replaced every three to four
    /// seconds, and one that nobody uses is closed after five, so that the store follows a name that leads to another
    /// server.
    pub fn max_connections(mut self, max: u32) -> Self {
        self.max_connections = max;
        self
    }

    /// The time limit of one connection attempt, including the login: at most an hour. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The deadline of an operation: at most an hour. Default: 500 ms.
    ///
    /// It covers waiting for a connection, all round trips and retries. A list of very many sessions is read in pages:
    /// each page has this deadline, and all pages together may take twenty times as long (10 seconds). A list that is
    /// not complete by then fails with [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether checks are refused at once, with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), when the
    /// server is overloaded. Default: `true`.
    ///
    /// Otherwise checks would wait for a connection until hardly any of them is answered in time. So the store limits how
    /// many checks wait or are in flight. The limit is 65,536. It shrinks when checks take longer than a tenth to a fifth of
    /// the [deadline](Self::deadline), with the time that they wait, and grows again when they do not. Logins, refreshes
    /// and logouts are never refused, and get a connection before checks that wait. Where a check comes before them, as
    /// under a `SessionLayer`, it may be refused.
    pub fn load_shedding(mut self, enabled: bool) -> Self {
        self.sheds_load = enabled;
        self
    }

    /// The interval between two purges of expired rows, at most an hour; `None`: leave them to other instances.
    /// Default: 1 minute.
    ///
    /// A purge removes, in small batches, all rows that have expired or that ended together with very many others.
    /// Any number of instances may purge concurrently.
    pub fn purge_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.purge_interval = interval.into();
        self
    }

    /// Connects, and waits until the server has answered.
    ///
    /// It does not check the tables, which [`migrate`](MySqlStore::migrate) creates.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a setting is invalid, the database does not exist, the
    /// account lacks a privilege on it, or the server is too old.
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the server cannot be reached, refuses the login, or
    /// is read-only.
    pub async fn connect(self) -> Result<MySqlStore, Error> {
        self.validate()?;
        let options = self.options()?;
        let prefix: Arc<str> = self.table_prefix.as_str().into();
        let sql = Sql::new(&prefix, self.deadline);
        let (setup, timeout) = (sql.setup.clone(), self.connect_timeout);
        let pool = Pool::new(options, setup, timeout, self.max_connections);
        pool.connect_first().await?;
        let admission = match self.sheds_load {
            true => Admission::new(self.deadline),
            false => Admission::unlimited(),
        };
        let client = Arc::new(Client::new(pool, sql, self.deadline, admission));
        let background = [
            Some(purge::close_old(&client)),
            purge::purge(&client, self.purge_interval),
        ];
        Ok(MySqlStore {
            client,
            prefix,
            _background: background.into_iter().flatten().collect(),
        })
    }

    fn validate(&self) -> Result<(), Error> {
        let prefix = &self.table_prefix;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=32).contains(&prefix.len()) || !prefix.bytes().all(is_word) {
            let message = "table_prefix is not 1 to 32 ASCII letters, digits and underscores";
            return Err(config_error(message));
        }
        if self.max_connections == 0 || self.max_connections > 10_000 {
            return Err(config_error("max_connections is not 1 to 10,000"));
        }
        check_waits([
            ("connect_timeout", Some(self.connect_timeout)),
            ("deadline", Some(self.deadline)),
            ("purge_interval", self.purge_interval),
        ])?;
        Ok(())
    }

    fn options(&self) -> Result<MySqlConnectOptions, Error> {
        let target = self.target.clone()?;
        let tls = self.with_tls.unwrap_or(target.tls);
        if tls && !cfg!(feature = "mysql-tls") {
            let message = "TLS to MySQL needs the feature `mysql-tls` of this crate";
            return Err(config_error(message));
        }
        if !tls && self.tls_roots.is_some() {
            return Err(config_error("certificates are given, but TLS is off"));
        }
        let username = self.username.clone().or(target.username);
        let username = username.ok_or_else(|| config_error("no MySQL user is given"))?;
        let ssl_mode = match tls {
            true => MySqlSslMode::VerifyIdentity,
            false => MySqlSslMode::Disabled,
        };
        let mut options = MySqlConnectOptions::new()
            .host(&target.host)
            .port(target.port)
            .username(&username)
            .database(&target.database)
            .ssl_mode(ssl_mode)
            // `Sql::setup` sets all of this.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            .disable_statement_logging();
        if let Some(password) = self.password.as_ref().or(target.password.as_ref()) {
            options = options.password(password);
        }
        #[cfg(feature = "mysql-tls")]
        if let Some(pem) = &self.tls_roots {
            tls::validate(pem)?;
            options = options.ssl_ca_from_pem(pem.clone());
        }
        Ok(options)
    }
}

impl fmt::Debug for MySqlStoreBuilder {
    /// Leaves out the URL, the password and certificates. The name of an account is not a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStoreBuilder")
            .field("username", &self.username)
            .field("table_prefix", &self.table_prefix)
            .field("max_connections", &self.max_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("deadline", &self.deadline)
            .field("load_shedding", &self.sheds_load)
            .field("purge_interval", &self.purge_interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test]
    async fn a_builder_checks_what_it_is_given() {
        let builder = || MySqlStoreBuilder::from_url("mysql://app@127.0.0.1:1/db");
        for (bad, part) in [
            (builder().table_prefix(""), "table_prefix"),
            (builder().table_prefix("a`b"), "table_prefix"),
            (builder().table_prefix("x".repeat(33)), "table_prefix"),
            (builder().max_connections(0), "max_connections"),
            (builder().connect_timeout(Duration::ZERO), "connect_timeout"),
            (builder().deadline(Duration::MAX), "deadline"),
            (builder().purge_interval(Duration::ZERO), "purge_interval"),
            (MySqlStoreBuilder::from_url("mysql://localhost/db"), "user"),
        ] {
            let error = bad.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
        }
        for secret in [
            builder().password("hunter2"),
            MySqlStoreBuilder::from_url("mysql://app:hunter2@localhost/db"),
            MySqlStoreBuilder::from_url("hunter2"),
        ] {
            assert!(!format!("{secret:?}").contains("hunter2"));
        }
    }

    #[cfg(not(feature = "mysql-tls"))]
    #[tokio::test]
    async fn tls_needs_the_feature() {
        let url = "mysql://app@localhost/db?ssl-mode=VERIFY_IDENTITY";
        let error = MySqlStoreBuilder::from_url(url).connect().await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("mysql-tls"), "{error}");
    }

    #[cfg(feature = "mysql-tls")]
    #[tokio::test]
    async fn certificates_are_checked_at_once() {
        let builder = || MySqlStoreBuilder::from_url("mysql://app@localhost/db");
        for (bad, part) in [
            (builder().tls(true).tls_roots(""), "tls_roots"),
            (builder().tls(true).tls_roots("hunter2"), "tls_roots"),
            (builder().tls_roots("hunter2"), "TLS is off"),
        ] {
            let error = bad.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
