use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redis::RedisError;

use super::{address::Address, fault::Fault};
use crate::{Error, ErrorKind};

/// The maximum number of secrets that are kept out of texts. The oldest ones, which have been rotated out, are forgotten.
const MAX_SECRETS: usize = 16;

/// Turns errors of the client into ours: no type of it, and no secret, gets out.
#[derive(Clone, Default)]
pub(crate) struct ErrorText {
    secrets: Arc<Mutex<VecDeque<String>>>,
}

impl ErrorText {
    /// Replaces this secret in all texts from now on.
    pub(crate) fn keep_out(&self, secret: Option<&str>) {
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else {
            return;
        };
        let mut secrets = self.secrets();
        if !secrets.iter().any(|known| known == secret) {
            if secrets.len() == MAX_SECRETS {
                secrets.pop_front();
            }
            secrets.push_back(secret.to_owned());
        }
    }

    fn secrets(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of the server at this address.
    pub(crate) fn convert_at(&self, address: &Address, error: &RedisError) -> Error {
        let error = self.convert(error);
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let message = format!("{error}, at {address}");
        Error::with_source(error.kind(), message, source.unwrap_or_default())
    }

    /// One error for several that have the same effect.
    pub(crate) fn all(kind: ErrorKind, message: &'static str, errors: &[Error]) -> Error {
        let errors: Vec<String> = errors.iter().map(Self::chain).collect();
        Error::with_source(kind, message, errors.join("; "))
    }

    /// The error and its sources, in one line.
    fn chain(error: &Error) -> String {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    pub(crate) fn convert(&self, error: &RedisError) -> Error {
        // Old servers quote the arguments of a command that they do not know, such as HELLO … AUTH, and only
        // the beginning of a long one.
        let text = error.to_string();
        let quoted = text.find("with args beginning with");
        let mut text = text[..quoted.unwrap_or(text.len())].to_owned();
        for secret in &*self.secrets() {
            text = text.replace(secret.as_str(), "***");
        }
        if Fault::of(error).is_temporary() {
            Error::with_source(ErrorKind::Unavailable, "Redis is unavailable", text)
        } else {
            Error::with_source(ErrorKind::Store, "Redis answered with an error", text)
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn error(reply: &str) -> RedisError {
        let value = parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn what_will_not_pass_by_itself_is_no_outage() {
        let kind = |reply: &str| ErrorText::default().convert(&error(reply)).kind();
        let reply = "WRONGTYPE Operation against a key holding the wrong kind of value";
        assert_eq!(kind(reply), ErrorKind::Store);
        let reply = "OOM command not allowed when used memory > 'maxmemory'.";
        assert_eq!(kind(reply), ErrorKind::Unavailable);
    }

    #[test]
    fn a_quoted_password_is_blotted_out() {
        let text = ErrorText::default();
        for secret in [None, Some(""), Some("hunter2"), Some("hunter2")] {
            text.keep_out(secret);
        }
        assert_eq!(text.secrets().len(), 1);
        for reply in [
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `hunter2`",
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `hunte",
            "ERR unknown subcommand 'hunter2'",
        ] {
            let converted = format!("{:?}", text.convert(&error(reply)));
            assert!(!converted.contains("hunte"), "{converted}");
            assert!(converted.contains("unknown"), "{converted}");
        }
    }

    #[test]
    fn the_latest_secrets_are_blotted_out() {
        let text = ErrorText::default();
        for n in 0..100 {
            text.keep_out(Some(&format!("secret-{n};")));
        }
        assert_eq!(text.secrets().len(), MAX_SECRETS);
        let converted = format!("{:?}", text.convert(&error("ERR no secret-99; here")));
        assert!(!converted.contains("secret-99"), "{converted}");
    }
}
