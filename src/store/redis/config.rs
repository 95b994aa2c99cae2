use std::{fmt, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::runtime::Handle;
use url::Url;

use super::{
    RedisStore,
    errors::ErrorText,
    keys::Keys,
    link::{Link, LinkConfig},
    topology::Topology,
};
use crate::{Error, ErrorKind};

/// The longest timeout that can be set.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);
const DEFAULT_PORT: u16 = 6379;
/// A peer that has not acknowledged data or keepalive probes for this long is gone.
const DEAD_PEER: Duration = Duration::from_secs(2);

/// Configures a [`RedisStore`]; made by [`RedisStore::builder`].
///
/// Mistakes are reported by [`connect`](Self::connect) and [`connect_lazy`](Self::connect_lazy).
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct RedisStoreBuilder {
    url: String,
    username: Option<String>,
    password: Option<String>,
    db: Option<u32>,
    token_key_prefix: String,
    user_key_prefix: String,
    connect_timeout: Duration,
    deadline: Duration,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            username: None,
            password: None,
            db: None,
            token_key_prefix: String::from("tbs:tokens"),
            user_key_prefix: String::from("tbs:users"),
            connect_timeout: Duration::from_secs(1),
            deadline: Duration::from_millis(500),
        }
    }

    /// The ACL user to log in as. Default: what the URL says.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password to log in with. Default: what the URL says.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The number of the database. Default: what the URL says, or 0.
    pub fn db(mut self, db: u32) -> Self {
        self.db = Some(db);
        self
    }

    /// What the keys of sessions begin with: `<prefix>:{<user id>}`. Default: `tbs:tokens`.
    ///
    /// All services that share sessions must agree on it. A prefix has 1 to 64 printable ASCII
    /// characters, no space and no braces.
    pub fn token_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_key_prefix = prefix.into();
        self
    }

    /// What the keys of cached users begin with: `<prefix>:{<user id>}`. Default: `tbs:users`.
    ///
    /// It must differ from the other prefix. Only services that have the same user type *and* the same user
    /// loader can share it; others would undo each other's work, and refuse users that the other
    /// one knows. Give it a version if the type changes (`shop:users:v2`).
    pub fn user_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.user_key_prefix = prefix.into();
        self
    }

    /// How long one attempt to connect may take, login included: at most an hour. Default: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an operation may take in all, at most an hour: waiting for a connection, its round trips, and a retry after
    /// a dropped connection. Default: 500 ms. (A list of very many sessions is read in pages, and the
    /// deadline is for each page.)
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Connects, and waits until the server has answered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what cannot be, [`ErrorKind::Unavailable`] if the server cannot be reached
    /// or refuses the login, and [`ErrorKind::Store`] for other errors that it answers with: there is no
    /// such database, this user must not read keys with these prefixes.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let store = self.connect_lazy()?;
        store.link.ready().await?;
        Ok(store)
    }

    /// Returns at once and connects in the background, for as long as it takes; until then, operations
    /// fail like in an outage.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for what cannot be.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime. The connection lives in that runtime.
    pub fn connect_lazy(self) -> Result<RedisStore, Error> {
        for (name, value) in [
            ("connect_timeout", self.connect_timeout),
            ("deadline", self.deadline),
        ] {
            if value.is_zero() || value > MAX_WAIT {
                let message = format!("{name} is not between 0 and {MAX_WAIT:?}");
                return Err(config_error(message));
            }
        }
        let keys = Keys::new(self.token_key_prefix, self.user_key_prefix)?;
        let mut server = Server::parse(&self.url)?;
        server.username = self.username.or(server.username);
        server.password = self.password.or(server.password);
        server.db = self.db.unwrap_or(server.db);
        if server.username.is_some() && server.password.is_none() {
            return Err(config_error("a Redis user is given, but no password"));
        }
        let errors = ErrorText::new(server.password.clone());
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            // The link has its own deadline, for whole operations.
            .set_response_timeout(None);
        let config = LinkConfig {
            runtime: Handle::current(),
            topology: Arc::new(Topology::Standalone {
                server: server.connection_info()?,
                probe: keys.probe(),
            }),
            connection,
            connect_timeout: self.connect_timeout,
            deadline: self.deadline,
            errors,
        };
        Ok(RedisStore {
            link: Link::start(&config),
            bulk: Arc::default(),
            config,
            keys,
        })
    }
}

impl fmt::Debug for RedisStoreBuilder {
    /// Leaves out the URL and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("username", &self.username)
            .field("db", &self.db)
            .field("token_key_prefix", &self.token_key_prefix)
            .field("user_key_prefix", &self.user_key_prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// One server, as a URL names it.
#[cfg_attr(test, derive(Debug, PartialEq))]
struct Server {
    host: String,
    port: u16,
    username: Option<String>,
    password: Option<String>,
    db: u32,
}

impl Server {
    /// Reads `redis://[[user]:password@]host[:port][/db]`. No error text quotes the URL: it may hold a
    /// password.
    fn parse(url: &str) -> Result<Self, Error> {
        let url = Url::parse(url)
            .map_err(|error| config_error(format!("the Redis URL cannot be read: {error}")))?;
        match url.scheme() {
            "redis" | "valkey" => {}
            "rediss" | "valkeys" => return Err(config_error("TLS to Redis is not supported yet")),
            scheme => {
                return Err(config_error(format!(
                    "the scheme `{scheme}` of the Redis URL is not supported; use `redis`"
                )));
            }
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(config_error(
                "the Redis URL has a query or a fragment, which means nothing here",
            ));
        }
        let host = match url.host() {
            Some(url::Host::Ipv6(address)) => address.to_string(),
            Some(host) => decode(&host.to_string(), "host")?,
            None => return Err(config_error("the Redis URL names no host")),
        };
        let path = url.path();
        let db = match path.strip_prefix('/').unwrap_or(path) {
            "" => 0,
            db => db.parse().map_err(|_| {
                config_error("the path of the Redis URL is not the number of a database")
            })?,
        };
        let username = (!url.username().is_empty()).then(|| url.username());
        Ok(Self {
            host,
            port: url.port().unwrap_or(DEFAULT_PORT),
            username: username.map(|name| decode(name, "user")).transpose()?,
            password: url
                .password()
                .map(|word| decode(word, "password"))
                .transpose()?,
            db,
        })
    }

    fn connection_info(self) -> Result<ConnectionInfo, Error> {
        let mut redis = RedisConnectionInfo::default()
            // RESP3 tells of a lost connection even while it is idle.
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .set_db(self.db.into());
        if let Some(username) = self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = self.password {
            redis = redis.set_password(password);
        }
        let info = ConnectionAddr::Tcp(self.host, self.port)
            .into_connection_info()
            .map_err(|error| config_error(error.category().to_owned()))?;
        Ok(info
            .set_tcp_settings(tcp_settings())
            .set_redis_settings(redis))
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_PEER)
        .with_interval(DEAD_PEER / 2);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(DEAD_PEER);
    settings
}

fn decode(text: &str, part: &str) -> Result<String, Error> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(config_error(format!(
            "the {part} in the Redis URL is not UTF-8"
        ))),
    }
}

pub(super) fn config_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(
        host: &str,
        port: u16,
        user: Option<&str>,
        password: Option<&str>,
        db: u32,
    ) -> Server {
        Server {
            host: host.to_owned(),
            port,
            username: user.map(str::to_owned),
            password: password.map(str::to_owned),
            db,
        }
    }

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            (
                "redis://localhost",
                server("localhost", 6379, None, None, 0),
            ),
            (
                "valkey://db.example:7000/",
                server("db.example", 7000, None, None, 0),
            ),
            (
                "redis://:s%40fe@10.0.0.1/3",
                server("10.0.0.1", 6379, None, Some("s@fe"), 3),
            ),
            (
                "redis://app:p%2Fw@[::1]:7001/15",
                server("::1", 7001, Some("app"), Some("p/w"), 15),
            ),
        ] {
            assert_eq!(Server::parse(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_quoting_them() {
        for url in [
            "",
            "localhost:hunter2",
            "http://:hunter2@localhost",
            "rediss://:hunter2@localhost",
            "redis-cluster://:hunter2@localhost",
            "redis://:hunter2@",
            "redis://:hunter2@localhost/hunter2",
            "redis://:hunter2@localhost/-1",
            "redis://:hunter2@localhost/0/1",
            "redis://:hunter2@localhost//1",
            "redis://:hunter2@localhost:99999",
            "redis://:hunter2@localhost?protocol=hunter2",
            "redis://:%ffhunter2@localhost",
        ] {
            let error = Server::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_builder_checks_what_it_is_given() {
        let builder = || RedisStoreBuilder::new("redis://localhost".to_owned());
        for (bad, part) in [
            (builder().username("app"), "password"),
            (builder().deadline(Duration::ZERO), "deadline"),
            (builder().deadline(Duration::MAX), "deadline"),
            (builder().connect_timeout(Duration::ZERO), "connect_timeout"),
            (builder().token_key_prefix(""), "token_key_prefix"),
            (builder().user_key_prefix("tbs:tokens"), "differ"),
        ] {
            let error = bad.connect_lazy().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!format!("{:?}", builder().password("hunter2")).contains("hunter2"));
    }
}
