//! Distributed bearer-token sessions for tower services.
//!
//! One service logs a user in and issues a token, every service accepts it, and a logout anywhere takes effect
//! everywhere, at once. Sessions and cached users live in a shared store.
//!
//! - [`TokenManager`] issues, checks, refreshes, lists and revokes tokens. It loads users by your own function, and
//!   caches them.
//! - [`SessionLayer`] is the tower middleware: it checks the bearer token of each request and attaches a [`User`] and a
//!   [`Session`] to it. The module [`middleware`] documents how requests are authenticated and answered.
//! - [`Session`], [`User`], `Option` of both, and [`TokenManager`] are axum extractors (feature `axum`, on by default).
//!   Other frameworks read the same types from the extensions of the request.
//! - [`Event`] is for audit logs and metrics, and feature `tracing` adds spans and events.
//!
//! # Stores
//!
//! | store | use it for |
//! |---|---|
//! | [`MemoryStore`] | one process, tests, development |
//! | [`RedisStore`] (feature `redis`, on by default) | any number of services over Redis or Valkey: one server, Sentinel or Cluster |
//! | [`MySqlStore`] (feature `mysql`) | the same over MySQL or MariaDB, where there is one already |
//! | a [`SessionStore`] of your own | another database; a conformance suite tests each rule of the contract |
//!
//! # Example
//!
//! ```
//! use tower_bearer_session::{MemoryStore, TokenManager};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_bearer_session::Error> {
//! let manager: TokenManager = TokenManager::new(MemoryStore::new());
//!
//! let token = manager.set_token("alice", None).await?;
//! let user = manager.check_token(token.expose_secret()).await?;
//! assert_eq!(user.unwrap().id(), "alice");
//!
//! manager.delete_token(token.expose_secret()).await?;
//! assert!(manager.check_token(token.expose_secret()).await?.is_none());
//! # Ok(()) }
//! ```
//!
//! The [README](https://github.com/tower-bearer-session/tower-bearer-session#readme) has an axum service, and the
//! [`guide`] covers operation, security, testing and performance.
//!
#![cfg_attr(feature = "redis", doc = "[`RedisStore`]: crate::RedisStore")]
#![cfg_attr(not(feature = "redis"), doc = "[`RedisStore`]: #stores")]
#![cfg_attr(feature = "mysql", doc = "[`MySqlStore`]: crate::MySqlStore")]
#![cfg_attr(not(feature = "mysql"), doc = "[`MySqlStore`]: #stores")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
pub use self::store::{MySqlStore, MySqlStoreBuilder};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::store::{
    NearCache, NearCacheHealth, RedisCredentials, RedisHealth, RedisPrimary, RedisStore,
    RedisStoreBuilder, RedisTopology,
};
pub use self::{
    error::{Error, ErrorKind},
    manager::{
        Event, EventKind, IssuedToken, LoadUser, RefreshedUsers, ReplaceOptions, Replacement,
        TokenInfo, TokenManager, TokenManagerBuilder, TokenOptions,
    },
    middleware::{Anonymous, Rejection, Session, SessionLayer},
    refusal::RefusalReason,
    scopes::Scopes,
    store::{MemoryStore, OnFull, SessionStore},
    token::{Token, TokenId},
    user::User,
};

mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
mod jitter;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod jwt;
mod manager;
pub mod middleware;
mod refusal;
mod scopes;
pub mod store;
mod sync;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test_util;
mod token;
mod user;

/// The code of the README, compiled as a test.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
