//! The parser of URLs, for the fuzz targets.

use super::url::Target;
use crate::Error;

/// The content of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MySqlUrl {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The account.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The name of the database.
    pub database: String,
    /// Whether to use TLS.
    pub tls: bool,
}

impl MySqlUrl {
    /// Parses a URL as the builder does.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let Target {
            host,
            port,
            username,
            password,
            database,
            tls,
        } = Target::parse(url)?;
        Ok(Self {
            host,
            port,
            username,
            password,
            database,
            tls,
        })
    }
}
