use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Error, store::redis::dial::Address};

/// For so long a majority has to agree on an epoch that is lower than one that was seen, until it is believed: only
/// somebody who configures the sentinels anew lowers it.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// What each sentinel said last.
pub(super) struct Board {
    pub(super) said: Vec<Option<Result<Answer, Error>>>,
    highest: u64,
    lower_since: Option<Instant>,
}

/// What a sentinel says of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    epoch: u64,
    master: Address,
}

/// What follows from it.
pub(super) enum Verdict {
    /// Too few have spoken, or they say what is outdated.
    Undecided,
    Master(Address),
    /// None knows, for these reasons.
    Nobody(Vec<Error>),
}

impl Board {
    pub(super) fn new(sentinels: usize) -> Self {
        Self {
            said: vec![None; sentinels],
            highest: 0,
            lower_since: None,
        }
    }

    pub(super) fn verdict(&mut self, now: Instant) -> Verdict {
        let majority = self.said.len() / 2 + 1;
        let heard = self.said.iter().flatten().count();
        let answers: Vec<&Answer> = self.said.iter().flatten().flatten().collect();
        if answers.len() < majority && heard < self.said.len() {
            return Verdict::Undecided;
        }
        let Some(highest) = answers.iter().map(|answer| answer.epoch).max() else {
            let errors = self.said.iter().flatten().cloned();
            return Verdict::Nobody(errors.filter_map(Result::err).collect());
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
        // Of those who know of the latest failover, most.
        let mut votes: BTreeMap<&Address, usize> = BTreeMap::new();
        for answer in answers.iter().filter(|answer| answer.epoch == highest) {
            *votes.entry(&answer.master).or_default() += 1;
        }
        let master = votes.into_iter().max_by_key(|(_, votes)| *votes);
        let master = master.map(|(master, _)| master.clone());
        self.lower_since = None;
        self.highest = highest;
        master.map_or(Verdict::Undecided, Verdict::Master)
    }
}

impl Answer {
    /// Reads the answer of `SENTINEL MASTER`.
    pub(super) fn read(answer: &HashMap<String, String>, master: Address) -> Option<Self> {
        Some(Self {
            epoch: answer.get("config-epoch")?.parse().ok()?,
            master,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn says(epoch: u64, port: u16) -> Option<Result<Answer, Error>> {
        let master = Address {
            host: "h".to_owned(),
            port,
        };
        Some(Ok(Answer { epoch, master }))
    }

    fn fails() -> Option<Result<Answer, Error>> {
        Some(Err(Error::new(ErrorKind::Unavailable, "down")))
    }

    /// The port of the master; 0 if nobody knows.
    fn verdict(
        board: &mut Board,
        said: &[Option<Result<Answer, Error>>; 3],
        at: Instant,
    ) -> Option<u16> {
        board.said = said.to_vec();
        match board.verdict(at) {
            Verdict::Undecided => None,
            Verdict::Master(master) => Some(master.port),
            Verdict::Nobody(_) => Some(0),
        }
    }

    #[test]
    fn the_latest_failover_that_anybody_knows_of_counts() {
        let (mut board, now) = (Board::new(3), Instant::now());
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
    fn a_majority_can_begin_anew() {
        let (mut board, now) = (Board::new(3), Instant::now());
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
