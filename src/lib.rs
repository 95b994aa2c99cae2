#![cfg_attr(feature = "axum", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "axum"),
    doc = "Distributed bearer-token sessions for tower services."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
pub use self::store::{MySqlStore, MySqlStoreBuilder};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::store::{RedisHealth, RedisPrimary, RedisStore, RedisStoreBuilder, RedisTopology};
pub use self::{
    error::{Error, ErrorKind},
    manager::{
        Event, IssuedToken, LoadUser, RefreshedUsers, Refusal, TokenInfo, TokenManager,
        TokenManagerBuilder, TokenOptions,
    },
    middleware::{Anonymous, Rejection, Session, SessionLayer},
    store::{MemoryStore, OnFull, SessionStore},
    token::{Token, TokenId},
    user::User,
};

mod error;
pub mod guide;
mod jitter;
#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
pub mod jwt;
mod manager;
pub mod middleware;
pub mod store;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test_util;
mod token;
mod user;
