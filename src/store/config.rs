//! What the builders of stores with a server have in common.

use std::{borrow::Cow, time::Duration};

use percent_encoding::percent_decode_str;

use crate::{Error, ErrorKind};

/// The longest time that can be set.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// How long all pages of a list may take together, in deadlines of one operation.
pub(super) const MAX_PAGES_DEADLINES: u32 = 20;

pub(super) fn config_error(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Refuses times that are zero or make no sense, by name.
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

/// Decodes a part of the URL of a `server`.
pub(super) fn decode(text: &str, part: &str, server: &str) -> Result<String, Error> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(config_error(format!(
            "the {part} in the {server} URL is not UTF-8"
        ))),
    }
}
