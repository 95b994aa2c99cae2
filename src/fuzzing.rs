//! Private parsers, for the fuzz targets in `fuzz/`.

#[cfg(feature = "mysql")]
pub use crate::store::mysql::fuzzing as mysql;
#[cfg(feature = "redis")]
pub use crate::store::redis::fuzzing as redis;
