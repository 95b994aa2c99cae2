use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderMap, header::USER_AGENT};
use serde_json::{Map, Value};

use crate::OnFull;

/// The maximum length of the entry `user_agent`, in bytes.
const MAX_USER_AGENT_LEN: usize = 256;

/// The options of a login, for [`TokenManager::set_token_with`](crate::TokenManager::set_token_with).
///
/// ```
/// use std::time::Duration;
/// use tower_bearer_session::TokenOptions;
///
/// let options = TokenOptions::new()
///     .ttl(Duration::from_secs(3600))
///     .max_lifetime(Duration::from_secs(30 * 24 * 3600))
///     .metadata("device", "Pixel 12")
///     .scopes(["orders:write"]);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct TokenOptions {
    pub(super) ttl: Option<Duration>,
    pub(super) max_lifetime: Option<Duration>,
    /// `Some(None)` for no limit.
    pub(super) limit: Option<Option<(u32, OnFull)>>,
    pub(super) metadata: Map<String, Value>,
    pub(super) scopes: Vec<String>,
}

impl TokenOptions {
    /// The defaults: ttl, absolute lifetime and session limit of the manager, no metadata, no scopes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time to live: the token expires after it unless it is refreshed.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the absolute lifetime: the token expires after it, however often it is refreshed.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = Some(lifetime);
        self
    }

    /// Sets the limit of this user's live sessions for this login, in place of the
    /// [manager's](crate::TokenManagerBuilder::session_limit): 1 to
    /// [`SessionLimit::MAX`](crate::store::SessionLimit::MAX).
    pub fn session_limit(mut self, max: u32, on_full: OnFull) -> Self {
        self.limit = Some(Some((max, on_full)));
        self
    }

    /// Logs in whatever the manager's session limit is, for example for a service account. The session counts for later
    /// logins with a limit.
    pub fn no_session_limit(mut self) -> Self {
        self.limit = Some(None);
        self
    }

    /// Adds an entry to the metadata of the session, such as the name or address of a device.
    ///
    /// All entries together, and the scopes, have at most 1024 bytes of JSON. The entries `scope` and `seen_at` are not
    /// for applications.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds the entry `user_agent`: what the client says that it is, cut to 256 bytes. Nothing is added if the request
    /// has no `User-Agent`.
    ///
    /// For lists of devices. The text comes from the client: escape it where it is shown.
    ///
    /// ```
    /// # use http::Request;
    /// use tower_bearer_session::TokenOptions;
    ///
    /// # let (parts, ()) = Request::new(()).into_parts();
    /// // Behind one proxy, which adds the address of its client to `X-Forwarded-For`.
    /// let options = TokenOptions::new()
    ///     .user_agent(&parts.headers)
    ///     .forwarded_address(&parts.headers, "x-forwarded-for");
    /// ```
    pub fn user_agent(self, headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(USER_AGENT) else {
            return self;
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        let mut end = text.len().min(MAX_USER_AGENT_LEN);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.metadata("user_agent", &text[..end])
    }

    /// Adds the entry `address`: the address of the client.
    pub fn address(self, address: IpAddr) -> Self {
        self.metadata("address", address.to_canonical().to_string())
    }

    /// Adds the entry `address` from a header field that a trusted proxy sets, such as `x-forwarded-for` or
    /// `x-real-ip`: the last address in it, which is the one that the proxy has added. Nothing is added if that is not
    /// an address.
    ///
    /// Use it only behind such a proxy: elsewhere the client chooses what is in the field. With several proxies, the
    /// last address is that of the proxy before; have the first one set a field of its own.
    pub fn forwarded_address(self, headers: &HeaderMap, field: &str) -> Self {
        let value = headers.get_all(field).iter().next_back();
        let value = value.and_then(|value| value.to_str().ok());
        let last = value.and_then(|value| value.rsplit(',').next());
        match last.and_then(|last| address_of(last.trim())) {
            Some(address) => self.address(address),
            None => self,
        }
    }

    /// Sets the [scopes](crate::Scopes) of the session: what its token may be used for.
    pub fn scopes<I>(mut self, scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }
}

/// The address in a list of a proxy: with or without a port, and with or without brackets if it is an IPv6 address.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    let with_port = || text.parse().map(|socket: SocketAddr| socket.ip());
    address.or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let fields = fields.iter().map(|&(name, value)| {
            let value = HeaderValue::from_bytes(value).unwrap();
            (http::HeaderName::from_static(name), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn the_last_address_in_the_field_counts() {
        let address = |values: &[&[u8]]| {
            let fields: Vec<_> = values
                .iter()
                .map(|&value| ("x-forwarded-for", value))
                .collect();
            let options =
                TokenOptions::new().forwarded_address(&headers(&fields), "X-Forwarded-For");
            options.metadata.get("address").cloned()
        };
        for (values, expected) in [
            (&[&b"192.0.2.7"[..]][..], "192.0.2.7"),
            (&[b"6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (&[b"6.6.6.6", b"192.0.2.7:4711 "], "192.0.2.7"),
            (&[b"x,[2001:db8::1]:443"], "2001:db8::1"),
            (&[b"[2001:db8::1]"], "2001:db8::1"),
            (&[b"2001:DB8::1"], "2001:db8::1"),
            (&[b"::ffff:192.0.2.7"], "192.0.2.7"),
        ] {
            assert_eq!(address(values), Some(expected.into()), "{values:?}");
        }
        let bad: [&[&[u8]]; 5] = [
            &[],
            &[b""],
            &[b"192.0.2.7,"],
            &[b"192.0.2.7, x"],
            &[b"192.0.2.7", b"\xFF"],
        ];
        for values in bad {
            assert_eq!(address(values), None, "{values:?}");
        }
    }

    #[test]
    fn a_user_agent_is_cut_between_characters() {
        let agent = |value: &[u8]| {
            let options = TokenOptions::new().user_agent(&headers(&[("user-agent", value)]));
            options.metadata["user_agent"].as_str().unwrap().to_owned()
        };
        assert_eq!(agent(b"curl/8"), "curl/8");
        assert_eq!(agent(&[b'x'; 999]).len(), 256);
        let odd = [&[b'x'; 255][..], "é".as_bytes(), b"y"].concat();
        assert_eq!(agent(&odd), "x".repeat(255));
        assert_eq!(agent(b"\xFF"), "\u{FFFD}");
        let nothing = TokenOptions::new().user_agent(&HeaderMap::new());
        assert!(nothing.metadata.is_empty());
    }
}
