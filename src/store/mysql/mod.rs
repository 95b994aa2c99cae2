use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sqlx::mysql::MySqlRow;
use tokio::time::{Instant, timeout};

pub use self::config::MySqlStoreBuilder;
#[cfg(fuzzing)]
pub use self::config::fuzzing;
use self::{
    client::{Client, WhenUnsure},
    errors::{Failure, overloaded, timed_out},
    pool::Link,
    purge::Background,
    statement::{Statement, query},
};
use super::{
    Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord,
    SessionStore, Updated, UserCursor, UserPage, admission::Outcome, config::MAX_PAGES_DEADLINES,
};
use crate::{Error, ErrorKind, TokenId};

mod client;
mod clock;
mod config;
mod cutoffs;
mod errors;
mod link;
mod list;
mod login;
mod many;
mod pool;
mod purge;
mod record;
mod schema;
mod setup;
mod sql;
mod statement;
mod update;
mod users;

/// The time limit of a migration.
const MIGRATION: Duration = Duration::from_secs(120);

/// A session store in MySQL or MariaDB, shared by all services with the same database and table prefix.
///
/// Needs MySQL 8.0 or MariaDB 10.6, or later; its tests run on MariaDB. Call [`migrate`](Self::migrate) once before
/// anything else: it creates the tables. Clones share one pool of connections. Every operation has a deadline, which
/// includes the wait for a connection. A connection whose operation timed out or failed is closed, and the next
/// operation opens another one.
///
/// All connections must lead to the one server that accepts writes: with a proxy that sends reads to replicas, sessions
/// that were just logged out may be accepted. A server that is `read_only` (or `innodb_read_only`) is treated as a
/// replica: every operation on it, including a check, fails with [`Unavailable`](crate::ErrorKind::Unavailable), even
/// if it is the only server. If a host name or address moves to another server while the old one still accepts writes,
/// no operation begins on a connection to the old server that is older than five seconds, or older than the first error
/// that reveals the move.
///
/// If the database, a table or a privilege is missing, every operation that needs it fails with
/// [`Config`](crate::ErrorKind::Config), which the middleware answers with 500. This also holds for a store that worked
/// before. The store works again as soon as the operator has restored what is missing.
///
/// All times are by the server's clock, in milliseconds. Expired rows are ignored, and removed in the background.
///
/// Writes carry their deadline, as a time of the server's clock: a server that hangs and executes a write after its
/// deadline changes nothing. The commit of a login, or of a logout of all sessions, checks the clock just before it
/// commits. If the server stops between this check and the end of the commit, the commit may still take effect later;
/// until then, no other login and no logout of all sessions of that user is acknowledged.
///
/// If its connection drops, an operation is retried once, except for a login that may have been committed. The store
/// cannot tell whether the first attempt of a retried write took effect:
///
/// - A retried logout reports that it ended the session, even if there was none.
/// - A retried update with [`if_version`](SessionChange::if_version) reports success if the session has changed as the
///   update would have changed it: its last refresh is no earlier than that of the version, and it expires one `ttl`
///   after its last refresh, or at its absolute end. The same refresh by another caller counts as its own.
///
/// A user may have any number of sessions. A logout of all of 200,000 sessions takes one pass over their rows and one
/// small write, and a login with a limit takes one pass. Sessions that end in this way are removed in the background.
/// If a login sets a limit for a user with very many more sessions, [`Created::evicted`] names only the first 512 of
/// those that it ends.
///
/// ```no_run
/// # async fn f() -> Result<(), tower_bearer_session::Error> {
/// use std::time::Duration;
/// use tower_bearer_session::MySqlStore;
///
/// let store = MySqlStore::connect("mysql://app:password@localhost/sessions").await?;
/// store.migrate().await?;
///
/// let store = MySqlStore::builder("mysql://db.example/sessions")
///     .username("app")
///     .password("secret")
///     .table_prefix("shop_")
///     .max_connections(20)
///     .deadline(Duration::from_millis(200))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MySqlStore {
    client: Arc<Client>,
    prefix: Arc<str>,
    _background: Arc<[Background]>,
}

impl MySqlStore {
    /// Connects, and waits until the server has answered.
    ///
    /// The URL is `mysql://user[:password]@host[:port]/database[?ssl-mode=…]`; the scheme `mariadb` is a synonym.
    /// Special characters are percent-encoded. `ssl-mode` is `VERIFY_IDENTITY` for TLS (feature `mysql-tls`) or
    /// `DISABLED`, the default.
    ///
    /// Must be called inside a tokio runtime, which has to outlive the store.
    ///
    /// # Errors
    ///
    /// Those of [`MySqlStoreBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Configures a store with a URL as in [`connect`](Self::connect); the builder's methods override the URL.
    pub fn builder(url: impl AsRef<str>) -> MySqlStoreBuilder {
        MySqlStoreBuilder::from_url(url.as_ref())
    }

    /// Creates missing tables, and migrates the tables of an older version of this crate.
    ///
    /// Repeating the call changes nothing, and completes a migration that was cut short; any number of instances may
    /// call it at once. Unless the tables are complete, the account needs the privilege `CREATE`, and for later
    /// versions `ALTER` and `INDEX`. All other methods need only `SELECT`, `INSERT`, `UPDATE` and `DELETE`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the tables are from a newer version of this crate, or if the
    /// table of cutoffs is missing while there are sessions: an empty one could revive sessions that were logged out.
    /// See the [guide](crate::guide::mysql#lost-tables-and-backups). Also the errors of any operation.
    pub async fn migrate(&self) -> Result<(), Error> {
        let migration = async {
            let connection = self.client.pool.open_alone().await?;
            schema::migrate(connection, &self.client.sql, &self.prefix).await
        };
        match timeout(MIGRATION, migration).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(timed_out()),
        }
    }

    fn check_statement(&self, user_id: &str, id: &[u8; 16]) -> Statement {
        query(&self.client.sql.check)
            .bind(user_id.as_bytes())
            .bind(&id[..])
    }

    /// Waits for a check, unless the server is overloaded.
    async fn admitted<T>(&self, check: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let admission = &self.client.admission;
        let Some(_permit) = admission.admit() else {
            return Err(overloaded());
        };
        let sent = Instant::now();
        let checked = check.await;
        match &checked {
            Ok(_) => admission.record(sent, Outcome::Answered(1)),
            Err(error) if error.kind() == ErrorKind::Timeout => {
                admission.record(sent, Outcome::Missed);
            }
            Err(_) => {}
        }
        checked
    }

    /// Runs one read and returns its rows.
    async fn read(&self, statement: impl Fn() -> Statement) -> Result<Vec<MySqlRow>, Error> {
        self.client.run(|link| read(link, statement())).await
    }
}

async fn read(mut link: Link, statement: Statement) -> Result<(Link, Vec<MySqlRow>), Failure> {
    let rows = link.read(statement).await?;
    Ok((link, rows))
}

impl fmt::Debug for MySqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStore")
            .field("table_prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// [`check`](SessionStore::check) is one prepared statement without locks that finds its rows by their primary keys.
///
/// Logins and [`delete_all`](SessionStore::delete_all) of one user run one after the other. If the caller of a check,
/// or of another operation with a single statement, goes away, the connection is used again once the server has
/// replied.
impl SessionStore for MySqlStore {
    async fn create(
        &self,
        user_id: &str,
        token_id: &TokenId,
        new: &NewSession,
        limit: Option<SessionLimit>,
    ) -> Result<Created, Error> {
        let sql = &self.client.sql;
        let create = |mut link: Link| async move {
            link.begin_alone(sql, user_id).await?;
            let created = login::create(&mut link, sql, user_id, token_id, new, limit).await?;
            link.commit(sql).await?;
            Ok((link, created))
        };
        // A retried login could revive a session that was logged out in between.
        let created = self.client.transaction(user_id, WhenUnsure::Fail, create);
        created.await?.ok_or_else(Error::session_limit)
    }

    async fn check(&self, user_id: &str, token_id: &TokenId) -> Result<Option<Checked>, Error> {
        let id = token_id.to_bytes();
        let check = |link| read(link, self.check_statement(user_id, &id));
        let rows = self.admitted(self.client.check(check)).await?;
        let checked = rows.first().map(record::checked).transpose();
        Ok(checked?.flatten())
    }

    async fn update(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        self.change(user_id, token_id, change).await
    }

    async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
        let id = token_id.to_bytes();
        let work = |mut link: Link| {
            let delete = query(&self.client.sql.delete)
                .bind(user_id.as_bytes())
                .bind(&id[..])
                .bind(user_id.as_bytes())
                .bind(link.not_after());
            async move {
                // If a retry finds no session, the first attempt may have ended it.
                let is_done = link.affected(delete).await? > 0 || link.is_retry;
                Ok((link, is_done))
            }
        };
        self.client.run(work).await
    }

    async fn delete_all(&self, user_id: &str, except: Option<&TokenId>) -> Result<u64, Error> {
        let sql = &self.client.sql;
        let except = except.map(TokenId::to_bytes);
        // The number of sessions that an attempt with an unknown commit ended.
        let ended_unsure = AtomicU64::new(0);
        let unsure = &ended_unsure;
        let delete_all = |mut link: Link| async move {
            link.begin_alone(sql, user_id).await?;
            let ended = cutoffs::end_all(&mut link, sql, user_id, except).await?;
            if let Err(failure) = link.commit(sql).await {
                unsure.fetch_max(ended, Ordering::Relaxed);
                return Err(failure);
            }
            Ok((link, ended))
        };
        let client = &self.client;
        let done = client.transaction(user_id, WhenUnsure::Repeat, delete_all);
        Ok(done.await?.max(unsure.load(Ordering::Relaxed)))
    }

    /// Each page has its own [deadline](MySqlStoreBuilder::deadline), and all pages together have twenty deadlines.
    async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
        let limit = self.client.deadline() * MAX_PAGES_DEADLINES;
        let pages = timeout(limit, self.list_pages(user_id));
        pages.await.unwrap_or_else(|_| {
            let message = format!("the list of sessions was not complete within {limit:?}");
            Err(Error::new(ErrorKind::Timeout, message))
        })
    }

    async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
        self.user_page(after).await
    }

    async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
        let get = || query(&self.client.sql.get_user).bind(user_id.as_bytes());
        let rows = self.read(get).await?;
        let value = rows.first().map(record::value).transpose();
        Ok(value.map_err(Failure::Driver)?.flatten())
    }

    async fn put_user(
        &self,
        user_id: &str,
        value: &[u8],
        ttl: Duration,
        mode: PutMode<'_>,
    ) -> Result<bool, Error> {
        let sql = &self.client.sql;
        let put = |mut link: Link| async move {
            let done = users::put(&mut link, sql, user_id, value, ttl, mode).await?;
            Ok((link, done))
        };
        self.client.borrowing(put).await
    }

    /// Fails with [`ErrorKind::Config`](crate::ErrorKind::Config) if the tables are not of this version.
    async fn ping(&self) -> Result<(), Error> {
        let sql = &self.client.sql;
        let ping = |mut link: Link| async move {
            schema::check(&mut link, sql).await?;
            Ok((link, ()))
        };
        self.client.borrowing(ping).await
    }
}
