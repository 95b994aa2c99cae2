//! Shared validation for the builders of stores with a server.

use std::{borrow::Cow, time::Duration};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::{Error, ErrorKind};

/// The largest timeout or interval that can be configured.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// The time limit for all pages of a list together, in multiples of the deadline of one operation.
pub(super) const MAX_PAGES_DEADLINES: u32 = 20;

pub(super) fn config_error(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Rejects a duration that is zero or longer than [`MAX_WAIT`]; the error contains its name.
pub(super) fn check_waits<const N: usize>(
    waits: [(&str, Option<Duration>); N],
) -> Result<(), Error> {
    for (name, value) in waits {
        if value.is_some_and(|value| value.is_zero() || value > MAX_WAIT) {
            let message = format!("{name} is not between 0 and {MAX_WAIT:?}");
            return Err(config_error(message));
        }
    }
    Ok(())
}

/// The host in the URL of a `server`, without the brackets of an IPv6 address.
///
/// Errors and logs show the host, so it must not contain control characters, or what would be another part of a URL.
pub(super) fn host(url: &Url, server: &str) -> Result<String, Error> {
    let host = match url.host() {
        Some(Host::Ipv6(address)) => return Ok(address.to_string()),
        Some(host) => decode(&host.to_string(), "host", server)?,
        None => String::new(),
    };
    if host.is_empty() {
        return Err(config_error(format!("the {server} URL names no host")));
    }
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b":@/?#[]".contains(&byte);
    match host.bytes().all(is_allowed) {
        true => Ok(host),
        false => Err(config_error(format!(
            "the host in the {server} URL is neither a name in ASCII nor an address"
        ))),
    }
}

/// Percent-decodes a part of the URL of a `server`.
pub(super) fn decode(text: &str, part: &str, server: &str) -> Result<String, Error> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(config_error(format!(
            "the {part} in the {server} URL is not UTF-8"
        ))),
    }
}
