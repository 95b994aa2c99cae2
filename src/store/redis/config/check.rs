use std::collections::HashSet;

use super::{
    RedisStoreBuilder, config_error,
    url::{Deployment, Target},
};
use crate::{Error, store::redis::wire::login::Credentials};

impl RedisStoreBuilder {
    /// What the URL says, changed by what the methods say.
    pub(super) fn target(&self) -> Result<Target, Error> {
        let mut target = self.target.clone()?;
        target.credentials.overlay(&self.username, &self.password);
        target.db = self.db.unwrap_or(target.db);
        target.tls = self.with_tls.unwrap_or(target.tls);
        let mut tls = target.tls;
        let Credentials { username, password } = &self.sentinel;
        let sentinel = username.is_some() || password.is_some() || self.with_sentinel_tls.is_some();
        match &mut target.deployment {
            Deployment::Sentinel {
                service,
                credentials,
                tls: sentinel_tls,
            } => {
                credentials.overlay(username, password);
                credentials.validate("sentinel user")?;
                *sentinel_tls = self.with_sentinel_tls.or(*sentinel_tls);
                tls |= *sentinel_tls == Some(true);
                if target.tls && *sentinel_tls == Some(false) && self.tls.trusts_anybody() {
                    return Err(config_error(
                        "sentinels without TLS may name any host, so that TLS to the servers needs `tls_roots` or \
                         `tls_server_name`",
                    ));
                }
                if service.is_empty() {
                    return Err(config_error("the name of the service is empty"));
                }
            }
            Deployment::Standalone | Deployment::Cluster if sentinel => {
                let message = "something is set for sentinels, but there are none";
                return Err(config_error(message));
            }
            Deployment::Cluster if target.db != 0 => {
                return Err(config_error("a cluster has no database but 0"));
            }
            Deployment::Standalone | Deployment::Cluster => {}
        }
        // A sentinel that is named twice has one voice.
        let mut seen = HashSet::new();
        target.nodes.retain(|node| seen.insert(node.clone()));
        if target.nodes.is_empty() {
            return Err(config_error("no address of a Redis server is given"));
        }
        target.credentials.validate("user")?;
        let is_fixed =
            target.credentials.username.is_some() || target.credentials.password.is_some();
        if self.credentials_source.is_some() && is_fixed {
            let message = "both fixed credentials and a source of credentials are given";
            return Err(config_error(message));
        }
        if self.tls.is_set() && !tls {
            return Err(config_error(
                "certificates or their name are given, but TLS is off",
            ));
        }
        Ok(target)
    }
}

impl Credentials {
    fn overlay(&mut self, username: &Option<String>, password: &Option<String>) {
        self.username = username.clone().or_else(|| self.username.take());
        self.password = password.clone().or_else(|| self.password.take());
    }

    fn validate(&self, who: &str) -> Result<(), Error> {
        if self.username.is_some() && self.password.is_none() {
            return Err(config_error(format!(
                "a Redis {who} is given, but no password"
            )));
        }
        Ok(())
    }
}
