//! Builds a store from its configuration.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::runtime::Handle;

use super::{RedisStoreBuilder, url::Deployment};
use crate::{
    Error,
    store::{
        config::{check_waits, config_error},
        redis::{
            RedisStore,
            conn::{health::Status, link_config::LinkConfig},
            keys::Keys,
            near::Near,
            route::{
                client::{Client, Servers},
                cluster::Cluster,
                node::Node,
            },
            source::{Source, sentinel::Sentinels},
            wire::{dial::Dialer, errors::ErrorText, login::Login},
        },
    },
};

impl RedisStoreBuilder {
    /// Connects, and waits until the server has answered; for a cluster, until one of its primaries has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an invalid configuration,
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the server or all sentinels cannot be reached or
    /// refuse the login, or no sentinel knows the service; and [`ErrorKind::Store`](crate::ErrorKind::Store) for other
    /// errors that a server answers with: there is no such database, this user must not read keys with these prefixes.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let store = self.connect_lazy()?;
        store.client.ready().await?;
        Ok(store)
    }

    /// Returns at once and connects in the background, for as long as it takes; until then, operations
    /// fail like in an outage.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an invalid configuration.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime. The connection lives in that runtime.
    pub fn connect_lazy(self) -> Result<RedisStore, Error> {
        let target = self.target()?;
        let confirm = self.confirm.as_ref().map(|confirm| confirm.timeout);
        check_waits([
            ("connect_timeout", Some(self.connect_timeout)),
            ("deadline", Some(self.deadline)),
            ("max_connection_age", Some(self.max_connection_age)),
            ("the timeout of confirm_replicas", confirm),
        ])?;
        if self.confirm.is_some_and(|confirm| confirm.replicas == 0) {
            return Err(config_error("confirm_replicas asks for no replica"));
        }
        let keys = Keys::new(self.token_key_prefix.clone(), self.user_key_prefix.clone())?;
        if let Some(near) = &self.near {
            near.validate()?;
        }
        let near = self
            .near
            .map(|near| Arc::new(Near::new(near, keys.clone())));
        let errors = ErrorText::default();
        errors.keep_out(target.credentials.password.as_deref());
        if let Deployment::Sentinel { credentials, .. } = &target.deployment {
            errors.keep_out(credentials.password.as_deref());
        }
        let dialer = |login, db, tls| -> Result<Dialer, Error> {
            Ok(Dialer {
                resolver: self.resolver.clone(),
                login,
                errors: errors.clone(),
                db,
                tls: self.tls.connector(tls)?,
                connect_timeout: self.connect_timeout,
                expands_seeds: self.expands_names,
            })
        };
        let login = match &self.credentials_source {
            Some(source) => Login::From(source.clone()),
            None => Login::With(target.credentials),
        };
        let config = Arc::new(LinkConfig {
            runtime: Handle::current(),
            dialer: dialer(login, target.db, target.tls)?,
            probe: keys.probe(),
            confirm: self.confirm.map(|confirm| confirm.timeout),
            connect_timeout: self.connect_timeout,
            deadline: self.deadline,
            sheds_load: self.sheds_load,
            max_connection_age: self.max_connection_age,
            is_nameless: AtomicBool::new(false),
            near: near.clone(),
            errors: errors.clone(),
            status: Arc::new(Status::new(target.deployment.topology())),
        });
        let one = |source| Servers::One(Box::new(Node::start(Arc::clone(&config), source)));
        let mut nodes = target.nodes;
        let servers = match target.deployment {
            Deployment::Standalone => one(Source::Standalone(nodes.swap_remove(0))),
            Deployment::Cluster => Servers::Cluster(Cluster::start(Arc::clone(&config), nodes)),
            Deployment::Sentinel {
                service,
                credentials,
                tls,
            } => {
                let dialer = dialer(Login::With(credentials), 0, tls.unwrap_or(target.tls))?;
                let sentinels = Sentinels::start(&config, dialer, nodes, service);
                one(Source::Sentinels(Arc::new(sentinels)))
            }
        };
        Ok(RedisStore {
            client: Client::new(servers, config, self.confirm),
            keys,
            near,
        })
    }
}
