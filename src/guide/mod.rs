//! The guide: everything about using and operating this crate that is not about one type.
//!
//! | page | content |
//! |---|---|
//! | `http` | extractors, guards, modes, token sources, refusals, caches, gRPC |
//! | `cookies` | session cookies: setting, clearing, lifetime, cross-site requests |
//! | `redis` | URLs, server settings, access rights, consistency |
//! | `near_cache` | checks without a round trip, and what they trade |
//! | `mysql` | servers, access rights, schema |
//! | `jwt` | keys, rotation, claims, services without a store |
//! | [`events`] | audit logs, metrics, spans |
//! | `production` | readiness, and what every fault does to requests |
//! | [`layout`] | keys and records in Redis, for services in other languages |
//! | [`security`], [`threat_model`] | how tokens are kept secret; attackers, guarantees, limits |
//! | `testing` | tests of services and of stores |
//! | [`performance`] | what a check costs |
//! | [`comparison`] | the same job with tower-sessions and axum-login |
//!
//! The pages in plain text need a feature: `http` is there with `axum`, `cookies` with `cookie`, `production` and
//! `near_cache` with `redis`, `testing` with `test-util`, and the others with the feature of their name.

// The pages link to what is in scope here.
#[cfg(all(doc, feature = "jwt"))]
use crate::jwt::JwtConfig;
#[cfg(all(doc, feature = "cookie"))]
use crate::middleware::{SameSite, SessionCookie};
#[cfg(all(doc, feature = "redis"))]
use crate::{ErrorKind, NearCache, RedisStore, RedisStoreBuilder};
#[cfg(all(doc, feature = "mysql"))]
use crate::{MySqlStore, MySqlStoreBuilder};
#[cfg(doc)]
use crate::{Session, SessionLayer, TokenManager, User};

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
#[doc = include_str!("http.md")]
#[doc = ""]
#[cfg_attr(feature = "cookie", doc = "[cookies]: crate::guide::cookies")]
#[cfg_attr(not(feature = "cookie"), doc = "[cookies]: #")]
pub mod http {}

#[cfg(feature = "cookie")]
#[cfg_attr(docsrs, doc(cfg(feature = "cookie")))]
#[doc = include_str!("cookies.md")]
pub mod cookies {}

#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc = include_str!("redis.md")]
pub mod redis {}

#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc = include_str!("near_cache.md")]
pub mod near_cache {}

#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
#[doc = include_str!("mysql.md")]
#[doc = ""]
#[cfg_attr(feature = "redis", doc = "[production]: crate::guide::production")]
#[cfg_attr(not(feature = "redis"), doc = "[production]: #")]
pub mod mysql {}

#[cfg(feature = "jwt")]
#[cfg_attr(docsrs, doc(cfg(feature = "jwt")))]
#[doc = include_str!("jwt.md")]
pub mod jwt {}

#[doc = include_str!("events.md")]
pub mod events {}

#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc = include_str!("production.md")]
pub mod production {}

#[doc = include_str!("layout.md")]
pub mod layout {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}
