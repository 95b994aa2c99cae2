//! The parser of MySQL URLs.

use url::Url;

use super::config_error;
use crate::{Error, store::config};

const PORT: u16 = 3306;

/// The database and the credentials in a URL.
#[derive(Clone)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) tls: bool,
}

impl Target {
    /// No error text quotes the URL: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let url = Url::parse(url)
            .map_err(|error| config_error(format!("the MySQL URL cannot be read: {error}")))?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            let message = "the scheme of the MySQL URL is neither `mysql` nor `mariadb`";
            return Err(config_error(message));
        }
        if url.fragment().is_some() {
            let message = "the MySQL URL has a fragment, which means nothing here";
            return Err(config_error(message));
        }
        let path = url.path();
        let database = decode(path.strip_prefix('/').unwrap_or(path), "path")?;
        if database.is_empty() || database.contains('/') {
            let message = "the path of the MySQL URL is not the name of a database";
            return Err(config_error(message));
        }
        let username = Some(url.username()).filter(|name| !name.is_empty());
        let password = url.password().map(|word| decode(word, "password"));
        let mut target = Self {
            host: config::host(&url, "MySQL")?,
            port: url.port().unwrap_or(PORT),
            username: username.map(|name| decode(name, "user")).transpose()?,
            password: password.transpose()?,
            database,
            tls: false,
        };
        let query = url.query().unwrap_or_default().split('&');
        for (number, parameter) in query.filter(|parameter| !parameter.is_empty()).enumerate() {
            target.set(parameter)?;
            // Readers differ in which of two values counts.
            if number > 0 {
                return Err(config_error("the MySQL URL has two `ssl-mode`"));
            }
        }
        Ok(target)
    }

    fn set(&mut self, parameter: &str) -> Result<(), Error> {
        // Not quoted in errors: it may be a part of an unescaped password.
        self.tls = match parameter.split_once('=') {
            Some(("ssl-mode", "VERIFY_IDENTITY")) => true,
            Some(("ssl-mode", "DISABLED")) => false,
            Some(("ssl-mode", _)) => {
                let message =
                    "`ssl-mode` in the MySQL URL is neither `VERIFY_IDENTITY` nor `DISABLED`";
                return Err(config_error(message));
            }
            _ => {
                let message = "the MySQL URL has a query parameter that means nothing here";
                return Err(config_error(message));
            }
        };
        Ok(())
    }
}

fn decode(text: &str, part: &str) -> Result<String, Error> {
    config::decode(text, part, "MySQL")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn urls_are_read() {
        let plain = Target {
            host: "localhost".to_owned(),
            port: 3306,
            username: Some("app".to_owned()),
            password: None,
            database: "sessions".to_owned(),
            tls: false,
        };
        for (url, expected) in [
            ("mysql://app@localhost/sessions", plain.clone()),
            (
                "mariadb://a%40b:p%2Fw@[::1]:3307/my%20db?ssl-mode=VERIFY_IDENTITY",
                Target {
                    host: "::1".to_owned(),
                    port: 3307,
                    username: Some("a@b".to_owned()),
                    password: Some("p/w".to_owned()),
                    database: "my db".to_owned(),
                    tls: true,
                },
            ),
            (
                "mysql://localhost/sessions?ssl-mode=DISABLED",
                Target {
                    username: None,
                    ..plain
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
            "redis://app:hunter2@localhost/db",
            "mysql://app:hunter2@/db",
            "mysql:///db",
            "mysql://app:hunter2@localhost",
            "mysql://app:hunter2@localhost/",
            "mysql://app:hunter2@localhost/hunter2/db",
            "mysql://app:hunter2@localhost:99999/db",
            "mysql://app:hunter2@localhost/db?hunter2",
            "mysql://app:hunter2@localhost/db?ssl-mode=hunter2",
            "mysql://app:hunter2@localhost/db#hunter2",
            "mysql://app:%ffhunter2@localhost/db",
            // A parameter that is there twice.
            "mysql://app:hunter2@localhost/db?ssl-mode=VERIFY_IDENTITY&ssl-mode=DISABLED",
            "mysql://app:hunter2@localhost/db?ssl-mode=DISABLED&ssl-mode=VERIFY_IDENTITY",
            // Hosts that no address can have: errors show the host.
            "mysql://app:hunter2@local%0Ahost/db",
            "mysql://app:hunter2@a%40b/db",
            "mysql://app:hunter2@a%3A1/db",
            "mysql://app:hunter2@h%C3%B6st/db",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
