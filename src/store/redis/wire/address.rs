//! Addresses of servers.

use std::{fmt, net::IpAddr};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Whether it is a host name, which may lead to another server at any time.
    pub(crate) fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// Reads `host`, `host:port`, `ipv6` or `[ipv6]:port`.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
            None => match text.split_once(':') {
                // More than one colon, and no brackets.
                Some((_, port)) if port.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        Self::new(host, port)
    }

    /// `None` if this cannot be a host: errors and logs show it.
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Option<Self> {
        let host = host.into();
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"@/?#[]".contains(&byte);
        let is_host = !host.is_empty() && host.bytes().all(allowed);
        is_host.then_some(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_told_from_an_ip_address() {
        let is_name = |text| Address::parse(text, 6379).unwrap().is_name();
        assert!(
            ["localhost", "redis-1.example:7000", "10.0.0.1.example"]
                .into_iter()
                .all(is_name)
        );
        assert!(
            !["10.0.0.1:1", "::1", "[fe80::1]:7000"]
                .into_iter()
                .any(is_name)
        );
    }

    #[test]
    fn addresses_are_read_and_written() {
        for (text, host, port) in [
            ("localhost", "localhost", 6379),
            ("redis-1.example:7000", "redis-1.example", 7000),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("::1", "::1", 6379),
            ("[::1]", "::1", 6379),
            ("[fe80::1]:7000", "fe80::1", 7000),
        ] {
            let address = Address::parse(text, 6379).unwrap();
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(Address::parse(&address.to_string(), 1), Some(address));
        }
        for bad in [
            "", ":1", "[]:1", "a:", "a:b", "a:65536", "[::1]1", "[::1", "u:p@h", "u@h", "a/1",
            "a b",
        ] {
            assert_eq!(Address::parse(bad, 6379), None, "{bad:?}");
        }
    }
}
