//! The parser of Redis URLs, which follow fred's conventions.

use std::collections::HashSet;

use url::Url;

use super::config_error;
use crate::{
    Error,
    store::{
        config,
        redis::{
            conn::health::RedisTopology,
            wire::{address::Address, login::Credentials},
        },
    },
};

pub(super) const PORT: u16 = 6379;
pub(super) const SENTINEL_PORT: u16 = 26379;

/// The servers and the credentials in a URL.
#[derive(Clone)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Target {
    pub(super) deployment: Deployment,
    /// The server, the sentinels, or some nodes of the cluster.
    pub(super) nodes: Vec<Address>,
    pub(super) credentials: Credentials,
    pub(super) db: u32,
    pub(super) tls: bool,
}

#[derive(Clone)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) enum Deployment {
    Standalone,
    Sentinel {
        service: String,
        credentials: Credentials,
        /// Whether to speak TLS to the sentinels; `None`: as to the nodes.
        tls: Option<bool>,
    },
    Cluster,
}

impl Target {
    pub(super) fn new(deployment: Deployment, nodes: Vec<Address>) -> Self {
        Self {
            deployment,
            nodes,
            credentials: Credentials::default(),
            db: 0,
            tls: false,
        }
    }

    /// Reads `scheme://[[user]:password@]host[:port][/db][?parameters]`. No error text quotes the URL: it may
    /// hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let url = Url::parse(url)
            .map_err(|error| config_error(format!("the Redis URL cannot be read: {error}")))?;
        let (tls, deployment) = scheme(url.scheme())?;
        if url.fragment().is_some() {
            let message = "the Redis URL has a fragment, which means nothing here";
            return Err(config_error(message));
        }
        let port = match deployment {
            Deployment::Sentinel { .. } => SENTINEL_PORT,
            Deployment::Standalone | Deployment::Cluster => PORT,
        };
        let first = Address {
            host: config::host(&url, "Redis")?,
            port: url.port().unwrap_or(port),
        };
        let username = Some(url.username()).filter(|name| !name.is_empty());
        let path = url.path();
        let mut target = Self {
            credentials: Credentials {
                username: username.map(|name| decode(name, "user")).transpose()?,
                password: url
                    .password()
                    .map(|word| decode(word, "password"))
                    .transpose()?,
            },
            db: match path.strip_prefix('/').unwrap_or(path) {
                "" => 0,
                db => db.parse().map_err(|_| {
                    config_error("the path of the Redis URL is not the number of a database")
                })?,
            },
            tls,
            ..Self::new(deployment, vec![first])
        };
        let mut seen = HashSet::new();
        let query = url.query().unwrap_or_default().split('&');
        for parameter in query.filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            target.set(name, decode(value, "query")?, port)?;
            // Readers differ in which of two values counts.
            if name != "node" && !seen.insert(name) {
                return Err(config_error(format!("the Redis URL has two `{name}`")));
            }
        }
        if let Deployment::Sentinel { service, .. } = &target.deployment
            && service.is_empty()
        {
            let message = "the Redis URL names no `sentinelServiceName`";
            return Err(config_error(message));
        }
        Ok(target)
    }

    fn set(&mut self, name: &str, value: String, port: u16) -> Result<(), Error> {
        match (name, &mut self.deployment) {
            ("node", Deployment::Sentinel { .. } | Deployment::Cluster) => {
                let message = "a `node` in the Redis URL is not `host[:port]`";
                let node = Address::parse(&value, port).ok_or_else(|| config_error(message))?;
                self.nodes.push(node);
            }
            ("sentinelServiceName", Deployment::Sentinel { service, .. }) => *service = value,
            ("sentinelUsername", Deployment::Sentinel { credentials, .. }) => {
                credentials.username = Some(value);
            }
            ("sentinelPassword", Deployment::Sentinel { credentials, .. }) => {
                credentials.password = Some(value);
            }
            ("sentinelTls", Deployment::Sentinel { tls, .. }) => {
                let message = "`sentinelTls` in the Redis URL is neither `true` nor `false`";
                *tls = Some(value.parse().map_err(|_| config_error(message))?);
            }
            (
                known @ ("node"
                | "sentinelServiceName"
                | "sentinelUsername"
                | "sentinelPassword"
                | "sentinelTls"),
                _,
            ) => {
                return Err(config_error(format!(
                    "the Redis URL has a `{known}`, which means nothing to its scheme"
                )));
            }
            // Not quoted: it may be a part of an unescaped password.
            _ => {
                return Err(config_error(
                    "the Redis URL has a query parameter that means nothing here",
                ));
            }
        }
        Ok(())
    }
}

impl Deployment {
    pub(super) fn topology(&self) -> RedisTopology {
        match self {
            Self::Standalone => RedisTopology::Standalone,
            Self::Sentinel { .. } => RedisTopology::Sentinel,
            Self::Cluster => RedisTopology::Cluster,
        }
    }
}

/// Reads a scheme: whether it means TLS, and the kind of servers.
fn scheme(scheme: &str) -> Result<(bool, Deployment), Error> {
    let (server, deployment) = match scheme.split_once('-') {
        None => (scheme, Some(Deployment::Standalone)),
        Some((server, "cluster")) => (server, Some(Deployment::Cluster)),
        Some((server, "sentinel")) => {
            let deployment = Deployment::Sentinel {
                service: String::new(),
                credentials: Credentials::default(),
                tls: None,
            };
            (server, Some(deployment))
        }
        Some((server, _)) => (server, None),
    };
    match (server, deployment) {
        ("redis" | "valkey", Some(deployment)) => Ok((false, deployment)),
        ("rediss" | "valkeys", Some(deployment)) => Ok((true, deployment)),
        // Not quoted: a text that is not a URL, such as `password:host`, may have a secret in this place.
        _ => Err(config_error(
            "the scheme of the Redis URL is not supported; use `redis`, `redis-sentinel` or `redis-cluster`, or with \
             TLS `rediss`, `rediss-sentinel` or `rediss-cluster`",
        )),
    }
}

fn decode(text: &str, part: &str) -> Result<String, Error> {
    config::decode(text, part, "Redis")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn addresses(nodes: &[&str]) -> Vec<Address> {
        let nodes = nodes.iter().map(|node| Address::parse(node, 0).unwrap());
        nodes.collect()
    }

    fn credentials(username: Option<&str>, password: &str) -> Credentials {
        Credentials {
            username: username.map(str::to_owned),
            password: Some(password.to_owned()),
        }
    }

    fn sentinel(service: &str, credentials: Credentials, tls: Option<bool>) -> Deployment {
        Deployment::Sentinel {
            service: service.to_owned(),
            credentials,
            tls,
        }
    }

    #[test]
    fn urls_are_read() {
        let new = |deployment, nodes: &[&str]| Target::new(deployment, addresses(nodes));
        for (url, expected) in [
            (
                "redis://localhost",
                new(Deployment::Standalone, &["localhost:6379"]),
            ),
            (
                "valkey://db.example:7000/",
                new(Deployment::Standalone, &["db.example:7000"]),
            ),
            (
                "rediss://:s%40fe@10.0.0.1/3",
                Target {
                    credentials: credentials(None, "s@fe"),
                    db: 3,
                    tls: true,
                    ..new(Deployment::Standalone, &["10.0.0.1:6379"])
                },
            ),
            (
                "redis://app:p%2Fw@[::1]:7001/15",
                Target {
                    credentials: credentials(Some("app"), "p/w"),
                    db: 15,
                    ..new(Deployment::Standalone, &["[::1]:7001"])
                },
            ),
            (
                "redis-cluster://a?node=b:7000&node=[::1]:7001",
                new(Deployment::Cluster, &["a:6379", "b:7000", "[::1]:7001"]),
            ),
            (
                "redis-sentinel://a?node=b:26380&sentinelServiceName=my%20master",
                new(
                    sentinel("my master", Credentials::default(), None),
                    &["a:26379", "b:26380"],
                ),
            ),
            (
                "rediss-sentinel://app:x@a/2?sentinelServiceName=m&sentinelUsername=s\
                 &sentinelPassword=1+1%3D2&sentinelTls=false",
                Target {
                    credentials: credentials(Some("app"), "x"),
                    db: 2,
                    tls: true,
                    ..new(
                        sentinel("m", credentials(Some("s"), "1+1=2"), Some(false)),
                        &["a:26379"],
                    )
                },
            ),
        ] {
            assert_eq!(Target::parse(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_quoting_them() {
        for url in [
            "",
            "localhost:hunter2",
            "http://:hunter2@localhost",
            "redis-shard://:hunter2@localhost",
            "http-cluster://:hunter2@localhost",
            // A secret where the scheme should be.
            "hunter2:x@localhost:6379",
            "hunter2://localhost",
            "hunter2-cluster://localhost",
            "redis-hunter2://localhost",
            "redis://:hunter2@",
            "redis:///0",
            "redis://:hunter2@localhost/hunter2",
            "redis://:hunter2@localhost/-1",
            "redis://:hunter2@localhost/0/1",
            "redis://:hunter2@localhost//1",
            "redis://:hunter2@localhost:99999",
            "redis://:hunter2@localhost?protocol=hunter2",
            "redis://:hunter2@localhost?hunter2",
            "redis://:hunter2@localhost#hunter2",
            "redis://:%ffhunter2@localhost",
            "redis://localhost?node=hunter2",
            "redis://localhost?sentinelPassword=hunter2",
            "redis-cluster://localhost?sentinelServiceName=hunter2",
            "redis-cluster://localhost?node=:hunter2@localhost",
            "redis-sentinel://:hunter2@localhost",
            "redis-sentinel://:hunter2@localhost?sentinelServiceName=",
            "redis-sentinel://localhost?sentinelServiceName=m&sentinelTls=hunter2",
            // A parameter that is there twice.
            "redis-sentinel://:hunter2@localhost?sentinelServiceName=m&sentinelServiceName=n",
            "redis-sentinel://localhost?sentinelServiceName=m&sentinelTls=true&sentinelTls=false",
            "redis-sentinel://localhost?sentinelServiceName=m&sentinelPassword=hunter2&sentinelPassword=x",
            // Hosts that no address can have: errors show the host.
            "redis://:hunter2@local%0Ahost",
            "redis://:hunter2@local%1B[31mhost",
            "redis://:hunter2@a%40b",
            "redis://:hunter2@a%3A1",
            "redis://:hunter2@%5Ba%5D",
            "redis://:hunter2@h%C3%B6st",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }
}
