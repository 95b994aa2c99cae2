use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::identity::Run;
use crate::{Error, store::redis::wire::address::Address};

/// The time for which a majority must report an epoch that is lower than an earlier one before it counts. Only an
/// administrator who resets the sentinels lowers the epoch.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// What the sentinels say.
#[derive(Default)]
pub(super) struct Board {
    pub(super) voices: BTreeMap<Address, Voice>,
    highest: u64,
    lower_since: Option<Instant>,
}

/// What one sentinel says.
#[derive(Default)]
pub(super) struct Voice {
    /// Its latest answer.
    pub(super) said: Option<Result<Answer, Error>>,
    /// The replica that it has promoted, once the replica says that it is a master.
    pub(super) promoted: Option<Address>,
}

/// A sentinel's answer about the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    epoch: u64,
    master: Address,
    /// Whether the sentinel has told a replica to become the master, and has not seen it do so yet.
    is_promoting: bool,
    /// The latest run of the master that the sentinel has seen.
    seen: Option<Run>,
}

/// The conclusion from the answers of all sentinels.
pub(super) enum Verdict {
    /// Too few sentinels have answered, or their answers are outdated.
    Undecided,
    Master(Address),
    /// No sentinel knows the master, for these reasons.
    NoMaster(Vec<Error>),
}

impl Board {
    pub(super) fn verdict(&mut self, now: Instant) -> Verdict {
        let voices = self.voices.len();
        let majority = voices / 2 + 1;
        let heard = said(&self.voices).count();
        let answers: Vec<&Answer> = said(&self.voices).flatten().collect();
        if answers.len() < majority && heard < voices {
            return Verdict::Undecided;
        }
        let Some(highest) = answers.iter().map(|answer| answer.epoch).max() else {
            let errors = said(&self.voices).cloned();
            return Verdict::NoMaster(errors.filter_map(Result::err).collect());
        };
        if highest < self.highest {
            if answers.len() < majority {
                self.lower_since = None;
                return Verdict::Undecided;
            }
            let since = *self.lower_since.get_or_insert(now);
            if now - since < RESET_AFTER {
                return Verdict::Undecided;
            }
        }
        // The majority of the sentinels that know of the latest failover.
        let mut votes: BTreeMap<&Address, usize> = BTreeMap::new();
        for answer in answers.iter().filter(|answer| answer.epoch == highest) {
            *votes.entry(&answer.master).or_default() += 1;
        }
        let master = votes.into_iter().max_by_key(|(_, votes)| *votes);
        let Some((master, _)) = master else {
            return Verdict::Undecided;
        };
        let promoted = self.voices.values().find_map(|voice| match &voice.said {
            Some(Ok(answer))
                if answer.is_promoting && answer.epoch == highest && answer.master == *master =>
            {
                voice.promoted.clone()
            }
            _ => None,
        });
        let master = promoted.unwrap_or_else(|| master.clone());
        self.lower_since = None;
        self.highest = highest;
        Verdict::Master(master)
    }

    /// Whether all sentinels that know of the latest failover and name this master have seen another run of it.
    pub(super) fn have_seen_another(&self, master: &Address, run: &Run) -> bool {
        let answers = said(&self.voices).flatten();
        let named = answers.filter(|answer| answer.master == *master);
        let highest = named.clone().map(|answer| answer.epoch).max();
        let mut seen = named
            .filter(|answer| Some(answer.epoch) == highest)
            .filter_map(|answer| answer.seen.as_ref())
            .peekable();
        seen.peek().is_some() && seen.all(|seen| run.is_other_than(seen))
    }
}

fn said(voices: &BTreeMap<Address, Voice>) -> impl Iterator<Item = &Result<Answer, Error>> + Clone {
    voices.values().filter_map(|voice| voice.said.as_ref())
}

impl Answer {
    /// Reads the answer of `SENTINEL MASTER`.
    pub(super) fn read(
        answer: &HashMap<String, String>,
        master: Address,
        now: Instant,
    ) -> Option<Self> {
        let field = |name| answer.get(name).map(String::as_str);
        // While the others are made to follow the next master, this is still about the last one.
        let is_about = field("ip") == Some(&master.host)
            && field("port").and_then(|port| port.parse().ok()) == Some(master.port);
        let seen = || {
            let id = field("runid").filter(|id| !id.is_empty())?;
            let ago = Duration::from_millis(field("info-refresh")?.parse().ok()?);
            Some(Run {
                id: id.to_owned(),
                since: now.checked_sub(ago)?,
            })
        };
        Some(Self {
            epoch: field("config-epoch")?.parse().ok()?,
            is_promoting: field("failover-state") == Some("wait_promotion"),
            seen: is_about.then(seen).flatten(),
            master,
        })
    }

    pub(super) fn is_promoting(&self) -> bool {
        self.is_promoting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn node(port: u16) -> Address {
        Address {
            host: "h".to_owned(),
            port,
        }
    }

    fn says(epoch: u64, port: u16) -> Option<Result<Answer, Error>> {
        Some(Ok(Answer {
            epoch,
            master: node(port),
            is_promoting: false,
            seen: None,
        }))
    }

    fn promotes(epoch: u64, port: u16) -> Option<Result<Answer, Error>> {
        let Some(Ok(answer)) = says(epoch, port) else {
            return None;
        };
        Some(Ok(Answer {
            is_promoting: true,
            ..answer
        }))
    }

    fn fails() -> Option<Result<Answer, Error>> {
        Some(Err(Error::new(ErrorKind::Unavailable, "down")))
    }

    fn board() -> Board {
        let voices = (1..=3).map(|port| (node(port), Voice::default()));
        Board {
            voices: voices.collect(),
            ..Board::default()
        }
    }

    fn say(board: &mut Board, said: &[Option<Result<Answer, Error>>; 3]) {
        for (voice, said) in board.voices.values_mut().zip(said) {
            voice.said.clone_from(said);
        }
    }

    /// The port of the master; 0 if no sentinel knows it.
    fn verdict(
        board: &mut Board,
        said: &[Option<Result<Answer, Error>>; 3],
        at: Instant,
    ) -> Option<u16> {
        say(board, said);
        match board.verdict(at) {
            Verdict::Undecided => None,
            Verdict::Master(master) => Some(master.port),
            Verdict::NoMaster(_) => Some(0),
        }
    }

    #[test]
    fn the_latest_failover_that_anybody_knows_of_counts() {
        let (mut board, now) = (board(), Instant::now());
        for (said, expected) in [
            ([None, None, None], None),
            ([says(0, 1), None, None], None),
            ([fails(), fails(), None], None),
            ([fails(), fails(), fails()], Some(0)),
            ([says(0, 1), fails(), None], None),
            ([says(0, 1), fails(), fails()], Some(1)),
            ([says(0, 1), says(0, 1), None], Some(1)),
            ([says(0, 2), says(0, 1), says(0, 1)], Some(1)),
            ([says(1, 2), says(0, 1), says(0, 1)], Some(2)),
            // The one that knew is gone; the others have not heard yet.
            ([fails(), says(0, 1), says(0, 1)], None),
            ([fails(), says(1, 2), says(0, 1)], Some(2)),
            ([fails(), fails(), says(2, 3)], Some(3)),
        ] {
            assert_eq!(verdict(&mut board, &said, now), expected, "{said:?}");
        }
    }

    #[test]
    fn a_promoted_replica_counts_while_its_sentinel_promotes_it() {
        let (mut board, now) = (board(), Instant::now());
        let first = board.voices.values_mut().next().unwrap();
        first.promoted = Some(node(9));
        for (said, expected) in [
            ([promotes(1, 1), says(1, 1), says(1, 1)], 9),
            ([says(1, 1), says(1, 1), says(1, 1)], 1),
            ([fails(), says(1, 1), says(1, 1)], 1),
            // Another one promotes something, or it promotes the replica of what is the master no more.
            ([says(1, 1), promotes(1, 1), says(1, 1)], 1),
            ([promotes(1, 1), says(2, 2), says(2, 2)], 2),
            ([promotes(2, 1), says(2, 2), says(2, 2)], 2),
        ] {
            assert_eq!(verdict(&mut board, &said, now), Some(expected), "{said:?}");
        }
    }

    #[test]
    fn a_server_is_another_one_if_all_who_name_it_have_seen_another_one() {
        let now = Instant::now() + Duration::from_secs(100);
        let run = |id: &str, since| Run {
            id: id.to_owned(),
            since,
        };
        let this = run("this", now - Duration::from_secs(50));
        let saw = |epoch, id: Option<&str>| match says(epoch, 1) {
            Some(Ok(answer)) => Some(Ok(Answer {
                seen: id.map(|id| run(id, now)),
                ..answer
            })),
            other => other,
        };
        for (said, expected) in [
            (
                [saw(1, Some("other")), saw(1, Some("other")), fails()],
                true,
            ),
            ([saw(1, Some("other")), None, None], true),
            ([saw(1, Some("other")), saw(1, None), None], true),
            ([saw(1, Some("other")), saw(1, Some("this")), None], false),
            ([saw(2, Some("other")), saw(1, Some("this")), None], true),
            ([saw(1, Some("this")), says(1, 2), fails()], false),
            ([saw(1, None), says(1, 2), fails()], false),
            ([None, None, None], false),
        ] {
            let mut board = board();
            say(&mut board, &said);
            assert_eq!(
                board.have_seen_another(&node(1), &this),
                expected,
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_majority_can_begin_anew() {
        let (mut board, now) = (board(), Instant::now());
        let later = now + RESET_AFTER;
        assert_eq!(
            verdict(&mut board, &[says(5, 1), says(5, 1), None], now),
            Some(1)
        );
        let minority = || [fails(), fails(), says(0, 2)];
        assert_eq!(verdict(&mut board, &minority(), now), None);
        assert_eq!(verdict(&mut board, &minority(), later), None);
        let majority = || [fails(), says(0, 2), says(0, 2)];
        assert_eq!(verdict(&mut board, &majority(), later), None);
        let still_later = later + RESET_AFTER;
        assert_eq!(verdict(&mut board, &majority(), still_later), Some(2));
        assert_eq!(verdict(&mut board, &minority(), still_later), Some(2));
    }
}
