//! Pages of all keys of a server that match a pattern.
//!
//! A cursor of `SCAN` means something only to the run of the server that gave it: another server hashes its keys in
//! another way. So the place of a page names the run. Scanning the keys of a replica would not notice a logout.

use std::fmt;

use redis::{FromRedisValue, Pipeline, Value};
use tokio::time::Instant;

use super::ping;
use crate::{
    Error, ErrorKind,
    store::redis::{
        conn::link::{Answer, Failure, Link, OnDrop},
        wire::{fault::Fault, run_id},
    },
};

/// How many keys a server looks at for a page, about.
const COUNT: usize = 1000;

/// A place in a scan: where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanPosition {
    /// The cursor; 0 for the first page of a server.
    pub(crate) cursor: u64,
    /// The run of the server that gave the cursor; empty if the cursor is 0.
    pub(crate) run_id: String,
    /// Of a cluster: which of its primaries is scanned.
    pub(crate) part: Option<Part>,
}

/// A primary of a cluster, by its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The lowest slot of the primary.
    pub(crate) first_slot: u16,
    /// A fingerprint of which slots are together at one primary.
    pub(crate) partition: u64,
}

/// Keys, and where the next page begins unless this is the last one.
pub(crate) type KeyPage = (Vec<Vec<u8>>, Option<ScanPosition>);

/// What a server replies to [`commands`].
pub(crate) type Reply = (Value, String, (u64, Vec<Vec<u8>>));

/// The commands for a page. Only a primary that serves the slot of `probe`, a key that does not exist, executes all of
/// them.
pub(crate) fn commands(pattern: &str, place: &ScanPosition, probe: &str) -> Pipeline {
    let mut commands = ping::commands(probe);
    commands.cmd("INFO").arg("server");
    let scan = commands.cmd("SCAN").arg(place.cursor);
    scan.arg("MATCH").arg(pattern).arg("COUNT").arg(COUNT);
    scan.arg("TYPE").arg("hash");
    commands
}

/// Reads the replies.
pub(crate) fn read<T: FromRedisValue>(mut answer: Answer) -> Result<T, Failure> {
    // A primary that takes no writes for now still is the primary.
    if let Some(probed) = answer.values.first_mut()
        && Fault::of_reply(probed) == Some(Fault::NoWrites)
    {
        *probed = Value::Nil;
    }
    Ok(answer.read()?.reply)
}

impl ScanPosition {
    /// The place of the next page at the same server, by what it has replied; `None` after its last page.
    pub(crate) fn next(&self, info: &str, cursor: u64) -> Result<Option<Self>, Failure> {
        let run_id = run_id(info).filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let Some(run_id) = run_id else {
            let message =
                "the server does not tell its run_id, without which its keys cannot be listed";
            return Err(Failure::Down(Error::new(ErrorKind::Store, message)));
        };
        if self.cursor != 0 && self.run_id != run_id {
            let message = "the server has been restarted, or another one has taken its place, since the listing began: \
                           start another listing";
            return Err(Failure::Down(Error::new(ErrorKind::Unavailable, message)));
        }
        Ok((cursor != 0).then(|| Self {
            cursor,
            run_id: run_id.to_owned(),
            part: self.part,
        }))
    }

    /// Reads the text of a place.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split('.').collect();
        let (cursor, run_id, part) = match words[..] {
            [cursor, run_id] => (cursor, run_id, None),
            [cursor, run_id, first_slot, partition] => {
                let part = Part {
                    first_slot: first_slot.parse().ok()?,
                    partition: partition.parse().ok()?,
                };
                (cursor, run_id, Some(part))
            }
            _ => return None,
        };
        Some(Self {
            cursor: cursor.parse().ok()?,
            run_id: run_id.to_owned(),
            part,
        })
    }
}

impl fmt::Display for ScanPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cursor, self.run_id)?;
        match self.part {
            Some(part) => write!(f, ".{}.{}", part.first_slot, part.partition),
            None => Ok(()),
        }
    }
}

impl Link {
    /// Reads a page of the keys of the only server.
    pub(crate) async fn scan(
        &self,
        deadline: Instant,
        pattern: &str,
        place: &ScanPosition,
        probe: &str,
    ) -> Result<KeyPage, Failure> {
        let commands = commands(pattern, place, probe);
        let answer = self.send(deadline, &commands, OnDrop::Retry).await?;
        let (_, info, (cursor, keys)) = read::<Reply>(answer)?;
        Ok((keys, place.next(&info, cursor)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(cursor: u64, run_id: &str) -> ScanPosition {
        ScanPosition {
            cursor,
            run_id: run_id.to_owned(),
            part: None,
        }
    }

    #[test]
    fn places_are_written_and_read() {
        let part = Part {
            first_slot: 16383,
            partition: u64::MAX,
        };
        let in_a_cluster = |place| ScanPosition {
            part: Some(part),
            ..place
        };
        for place in [
            place(7, "abc"),
            in_a_cluster(place(u64::MAX, "0f")),
            in_a_cluster(ScanPosition::default()),
        ] {
            assert_eq!(ScanPosition::parse(&place.to_string()), Some(place));
        }
        for bad in [
            "",
            "1",
            "x.abc",
            "-1.abc",
            "1.abc.2",
            "1.abc.65536.1",
            "1.abc.1.x",
            "1.a.2.3.4",
            "18446744073709551616.abc",
        ] {
            assert_eq!(ScanPosition::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_is_for_the_run_that_gave_it() {
        let info = |run_id| format!("# Server\r\nredis_version:7\r\nrun_id:{run_id}\r\n");
        let next = |place: ScanPosition, info: &str, cursor| place.next(info, cursor).ok();
        let first = ScanPosition::default();
        let second = place(5, "abc");
        assert_eq!(
            next(first.clone(), &info("abc"), 5),
            Some(Some(second.clone()))
        );
        assert_eq!(
            next(second.clone(), &info("abc"), 6),
            Some(Some(place(6, "abc")))
        );
        assert_eq!(next(second.clone(), &info("abc"), 0), Some(None));
        for other in [info("abe"), info(""), info("a.b"), String::new()] {
            assert_eq!(next(second.clone(), &other, 0), None, "{other}");
        }
        // Without it, no later page could tell.
        assert_eq!(next(first, "# Server\r\n", 5), None);
    }
}
