//! Shared validation for the builders of stores with a server.

use std::{borrow::Cow, time::Duration};

use percent_encoding::percent_decode_str;

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

/// Percent-decodes a part of the URL of a `server`.
pub(super) fn decode(text: &str, part: &str, server: &str) -> Result<String, Error> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(config_error(format!(
            "the {part} in the {server} URL is not UTF-8"
        ))),
    }
}
