use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redis::RedisError;

use super::{address::Address, fault::Fault};
use crate::{Error, ErrorKind};

/// The maximum number of secrets of the application's source that are kept out of texts: for each of the logins at the
/// same time, and then some. Those that were used least recently are forgotten, because they have been rotated out.
const MAX_SECRETS: usize = 1024;

/// Turns errors of the client into ours: no type of it, and no secret, gets out.
#[derive(Clone, Default)]
pub(crate) struct ErrorText {
    secrets: Arc<Mutex<Secrets>>,
}

#[derive(Default)]
struct Secrets {
    fixed: Vec<String>,
    /// The one that was used last is last.
    changing: VecDeque<String>,
}

impl ErrorText {
    /// Replaces this secret in all texts.
    pub(crate) fn keep_out(&self, secret: Option<&str>) {
        let secret = secret.filter(|secret| !secret.is_empty());
        self.secrets().fixed.extend(secret.map(str::to_owned));
    }

    /// Replaces this secret in all texts, until very many others have been used after it.
    pub(crate) fn keep_out_for_now(&self, secret: Option<&str>) {
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else {
            return;
        };
        let changing = &mut self.secrets().changing;
        changing.retain(|known| known != secret);
        if changing.len() == MAX_SECRETS {
            changing.pop_front();
        }
        changing.push_back(secret.to_owned());
    }

    fn secrets(&self) -> MutexGuard<'_, Secrets> {
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
        self.secrets().blot_out(&mut text);
        if Fault::of(error).is_temporary() {
            Error::with_source(ErrorKind::Unavailable, "Redis is unavailable", text)
        } else {
            Error::with_source(ErrorKind::Store, "Redis answered with an error", text)
        }
    }
}

impl Secrets {
    fn blot_out(&self, text: &mut String) {
        let all = self.fixed.iter().chain(&self.changing);
        let mut quoted: Vec<&String> = all.filter(|&secret| text.contains(secret)).collect();
        // One may be a part of another.
        quoted.sort_unstable_by_key(|secret| Reverse(secret.len()));
        for secret in quoted {
            *text = text.replace(secret, "***");
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
        for secret in [None, Some(""), Some("hunter2")] {
            text.keep_out(secret);
            text.keep_out_for_now(secret);
        }
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
    fn secrets_in_use_are_blotted_out_however_many_others_there_were() {
        let text = ErrorText::default();
        text.keep_out(Some("fixed"));
        for n in 0..2 * MAX_SECRETS {
            text.keep_out_for_now(Some("again"));
            text.keep_out_for_now(Some(&format!("again-{n};")));
        }
        assert_eq!(text.secrets().changing.len(), MAX_SECRETS);
        // The whole secret, and not only the part that is another one.
        let latest = 2 * MAX_SECRETS - 1;
        let reply = format!("ERR no fixed, again, again-{latest}; here");
        let converted = format!("{:?}", text.convert(&error(&reply)));
        assert!(converted.contains("no ***, ***, *** here"), "{converted}");
    }
}
