//! Scanning the keys of all primaries, one after the other.
//!
//! A key that moves to another node during a listing could be missed. With each page its node tells its view of the
//! cluster, and all views of a listing must have the same partition of the slots, with no slot on the move. So for each
//! slot there is one page after the other from the node that held it, and all of the slot's keys, when the page was
//! read.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Cluster, map::slot_of, partition::Partition, unavailable};
use crate::store::redis::{
    conn::link::{Failure, OnDrop},
    keys::Keys,
    ops::scan::{self, KeyPage, Part, Reply, ScanPosition},
    route::node::Lane,
    wire::fault::Fault,
};

impl Cluster {
    /// Reads a page of the keys of all primaries.
    pub(crate) async fn scan(
        &self,
        deadline: Instant,
        keys: &Keys,
        place: &ScanPosition,
    ) -> Result<KeyPage, Failure> {
        let first_slot = place.part.map_or(0, |part| part.first_slot);
        let map = self.map_by(deadline).await?;
        let Some((_, node)) = map.primary(first_slot) else {
            return Err(self.changing());
        };
        let holds = |key: &str| {
            let primary = map.primary(slot_of(key));
            primary.is_some_and(|(_, primary)| Arc::ptr_eq(primary, node))
        };
        let Some(probe) = keys.unused_key(holds) else {
            return Err(self.changing());
        };
        let mut commands = scan::commands(&keys.sessions_pattern(), place, &probe);
        // After the keys: what has left the node before them is known here.
        commands.cmd("CLUSTER").arg("NODES");
        let link = node.lane(Lane::Lists);
        let answer = link.send(deadline, &commands, OnDrop::Retry).await;
        let answer = answer.inspect_err(|_| self.shared.outdated.notify_one())?;
        let probed = answer.values.first().and_then(Fault::of_reply);
        if probed.is_some_and(Fault::is_elsewhere) {
            return Err(self.changing());
        }
        let ((_, info, (cursor, found)), nodes) = {
            let (probed, info, page, nodes) = scan::read(answer)?;
            let reply: Reply = (probed, info, page);
            let nodes: String = nodes;
            (reply, nodes)
        };
        let partition = Partition::read(&nodes).filter(|partition| partition.own == first_slot);
        let Some(partition) = partition else {
            return Err(self.changing());
        };
        let fingerprint = partition.fingerprint;
        if place.part.is_some_and(|part| part.partition != fingerprint) {
            return Err(self.changing());
        }
        let part = |first_slot| {
            Some(Part {
                first_slot,
                partition: fingerprint,
            })
        };
        let next = match place.next(&info, cursor)? {
            Some(next) => Some(ScanPosition {
                part: part(first_slot),
                ..next
            }),
            None => partition.next().map(|first_slot| ScanPosition {
                part: part(first_slot),
                ..ScanPosition::default()
            }),
        };
        Ok((found, next))
    }

    fn changing(&self) -> Failure {
        self.shared.outdated.notify_one();
        Failure::Down(unavailable(
            "slots of the cluster are being moved, or have been since the listing began: start another listing",
        ))
    }
}
