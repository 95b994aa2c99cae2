use std::num::NonZeroU32;

use crate::{Error, ErrorKind, OnFull, store::SessionLimit};

/// A session limit, or an error of this kind if there cannot be one.
pub(super) fn session_limit(
    (max, on_full): (u32, OnFull),
    kind: ErrorKind,
) -> Result<SessionLimit, Error> {
    let max = NonZeroU32::new(max).ok_or_else(|| {
        let message = "a session limit of 0 would allow no login at all";
        Error::new(kind, message)
    })?;
    if max.get() > SessionLimit::MAX {
        let most = SessionLimit::MAX;
        let message = format!("a session limit of {max}: the largest is {most}");
        return Err(Error::new(kind, message));
    }
    Ok(SessionLimit { max, on_full })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_limit_is_at_least_one_and_at_most_the_largest() {
        let limit = |max| session_limit((max, OnFull::Reject), ErrorKind::Config);
        for max in [1, SessionLimit::MAX] {
            assert_eq!(limit(max).unwrap().max.get(), max);
        }
        for max in [0, SessionLimit::MAX + 1, u32::MAX] {
            assert_eq!(limit(max).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
