//! The parser of URLs, for the fuzz targets.

use super::url::{Deployment, Target};
use crate::{Error, RedisTopology};

/// The content of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// The kind of servers.
    pub topology: RedisTopology,
    /// The hosts and ports.
    pub nodes: Vec<(String, u16)>,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database.
    pub db: u32,
    /// Whether to use TLS.
    pub tls: bool,
    /// The name of the service that the sentinels know; empty without sentinels.
    pub service: String,
    /// The ACL user at the sentinels.
    pub sentinel_username: Option<String>,
    /// The password at the sentinels.
    pub sentinel_password: Option<String>,
    /// Whether to use TLS to the sentinels; `None`: as to the nodes.
    pub sentinel_tls: Option<bool>,
}

impl RedisUrl {
    /// Parses a URL as the builder does.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let target = Target::parse(url)?;
        let topology = target.deployment.topology();
        let (service, sentinel, sentinel_tls) = match target.deployment {
            Deployment::Sentinel {
                service,
                credentials,
                tls,
            } => (service, credentials, tls),
            Deployment::Standalone | Deployment::Cluster => Default::default(),
        };
        let nodes = target.nodes.into_iter();
        Ok(Self {
            topology,
            nodes: nodes.map(|node| (node.host, node.port)).collect(),
            username: target.credentials.username,
            password: target.credentials.password,
            db: target.db,
            tls: target.tls,
            service,
            sentinel_username: sentinel.username,
            sentinel_password: sentinel.password,
            sentinel_tls,
        })
    }
}
