//! The sentinels to ask: the configured ones, or all those that the configured names lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::Shared;
use crate::store::redis::wire::{address::Address, dial::Seed};

/// How often the names are looked up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Asks all sentinels, each in a task of its own, until this is dropped.
pub(super) async fn ask_all(shared: Arc<Shared>, configured: Vec<Address>) {
    let mut found: Vec<_> = configured.into_iter().map(|it| (it, Vec::new())).collect();
    let mut tasks = JoinSet::new();
    let mut asked: BTreeMap<Address, AbortHandle> = BTreeMap::new();
    loop {
        let mut look_ups = JoinSet::new();
        for (name, (configured, _)) in found.iter().enumerate() {
            let (shared, configured) = (Arc::clone(&shared), configured.clone());
            look_ups.spawn(async move { (name, shared.dialer.seeds(&configured).await) });
        }
        for (name, outcome) in look_ups.join_all().await {
            let (configured, seeds) = &mut found[name];
            match outcome {
                Ok(new) => *seeds = new,
                // The ones that were found before are still there, as far as is known. If there are none, the error of
                // the attempt to connect tells why.
                Err(_) if seeds.is_empty() => seeds.push(Seed::at(configured)),
                Err(_) => {}
            }
        }
        let seeds: Vec<&Seed> = found.iter().flat_map(|(_, seeds)| seeds).collect();
        shared.seat(&seeds.iter().map(|seed| &seed.address).collect());
        asked.retain(|address, task| {
            let stays = seeds.iter().any(|seed| seed.address == *address);
            if !stays {
                task.abort();
            }
            stays
        });
        for seed in seeds {
            asked.entry(seed.address.clone()).or_insert_with(|| {
                let asking = Arc::clone(&shared).ask_for_ever(seed.clone());
                tasks.spawn(asking)
            });
        }
        // The aborted ones.
        while tasks.try_join_next().is_some() {}
        if shared.dialer.expands_seeds {
            sleep(LOOK_UP).await;
        } else {
            pending::<()>().await;
        }
    }
}

impl Shared {
    /// Gives a voice to these sentinels, and to no other.
    fn seat(&self, sentinels: &BTreeSet<&Address>) {
        let mut board = self.board();
        let before = board.voices.len();
        board
            .voices
            .retain(|address, _| sentinels.contains(address));
        let has_lost = board.voices.len() < before;
        for &address in sentinels {
            board.voices.entry(address.clone()).or_default();
        }
        // Perhaps those who are left are a majority now.
        if has_lost {
            self.conclude(&mut board);
        }
    }
}
