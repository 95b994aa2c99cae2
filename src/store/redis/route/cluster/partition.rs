//! Which slots are together at one primary, by what a node says of itself and of the others.

use std::collections::BTreeMap;

use crc::{CRC_64_XZ, Crc};

use super::map::SLOTS;

/// A node's view of a cluster in which every slot has a primary and none is on the move.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// The lowest slot of the node itself.
    pub(super) own: u16,
    /// The lowest slot of each primary, in order.
    firsts: Vec<u16>,
    /// The same for the same partition, whichever nodes the primaries are.
    pub(super) fingerprint: u64,
}

impl Partition {
    /// Reads the answer of `CLUSTER NODES`; `None` if the node is no primary with slots, one of its slots is on the
    /// move, or a slot has no primary.
    ///
    /// Each line is `<id> <address> <flags> <primary> <ping> <pong> <epoch> <link> <slots>…`, and a node shows of
    /// itself the slots on the move, in brackets
    /// ([`CLUSTER NODES`](https://redis.io/docs/latest/commands/cluster-nodes/)).
    pub(super) fn read(nodes: &str) -> Option<Self> {
        let mut owners = vec![None; usize::from(SLOTS)];
        let mut myself = None;
        for (node, line) in nodes.lines().enumerate() {
            let mut words = line.split(' ');
            if words.nth(2)?.split(',').any(|flag| flag == "myself") {
                myself = Some(node);
            }
            for slots in words.skip(5).filter(|slots| !slots.is_empty()) {
                let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
                let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
                for owner in owners.get_mut(usize::from(first)..=usize::from(last))? {
                    if owner.replace(node).is_some() {
                        return None;
                    }
                }
            }
        }
        let mut firsts = Vec::new();
        let mut parts = BTreeMap::new();
        let (mut own, mut before) = (None, None);
        let crc = Crc::<u64>::new(&CRC_64_XZ);
        let mut fingerprint = crc.digest();
        for (slot, owner) in (0..SLOTS).zip(owners) {
            let owner = owner?;
            let part = *parts.entry(owner).or_insert_with(|| {
                firsts.push(slot);
                if Some(owner) == myself {
                    own = Some(slot);
                }
                firsts.len() as u16
            });
            if before.replace(part) != Some(part) {
                fingerprint.update(&slot.to_be_bytes());
                fingerprint.update(&part.to_be_bytes());
            }
        }
        Some(Self {
            own: own?,
            firsts,
            fingerprint: fingerprint.finalize(),
        })
    }

    /// The lowest slot of the next primary after the node itself; `None` after the last one.
    pub(super) fn next(&self) -> Option<u16> {
        self.firsts.iter().copied().find(|&first| first > self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: [&str; 3] = ["0-100 200", "101-199 201-9999", "10000-16383"];

    /// What the node of this index says, of primaries with these slots and a replica of each.
    fn said(asked: usize, slots: &[&str]) -> String {
        let mut lines = String::new();
        for (node, slots) in slots.iter().enumerate() {
            let myself = if node == asked { "myself," } else { "" };
            lines += &format!("{node}r h:1@2,name slave {node}p 0 1 1 connected\n");
            lines += &format!("{node}p h:1@2 {myself}master - 0 1 1 connected {slots}\n");
        }
        lines
    }

    fn read(asked: usize, slots: &[&str]) -> Option<Partition> {
        Partition::read(&said(asked, slots))
    }

    #[test]
    fn the_parts_are_in_the_order_of_their_lowest_slots() {
        let next = |asked, slots: &[&str]| {
            let read = read(asked, slots)?;
            Some((read.own, read.next()))
        };
        let mixed = [THREE[2], THREE[0], THREE[1]];
        for (slots, order) in [(THREE, [0, 1, 2]), (mixed, [1, 2, 0])] {
            assert_eq!(next(order[0], &slots), Some((0, Some(101))));
            assert_eq!(next(order[1], &slots), Some((101, Some(10000))));
            assert_eq!(next(order[2], &slots), Some((10000, None)));
        }
        assert_eq!(next(0, &["0-16383"]), Some((0, None)));
    }

    #[test]
    fn a_fingerprint_is_that_of_the_partition() {
        let fingerprint = |asked, slots: &[&str]| read(asked, slots).unwrap().fingerprint;
        let same = fingerprint(0, &THREE);
        // Asked elsewhere, after a failover, with empty primaries, and written in another way.
        assert_eq!(fingerprint(2, &THREE), same);
        assert_eq!(fingerprint(0, &[THREE[1], THREE[2], THREE[0]]), same);
        assert_eq!(
            fingerprint(1, &["", THREE[0], THREE[1], "", THREE[2]]),
            same
        );
        assert_eq!(
            fingerprint(0, &["200 0-50 51-100", THREE[1], THREE[2]]),
            same
        );
        for other in [
            ["0-100", "101-9999", "10000-16383"],
            ["0-99 200", "100-199 201-9999", "10000-16383"],
            ["0-100 200", "101-199 201-10000", "10001-16383"],
            ["0-100 200-300", "101-199 301-9999", "10000-16383"],
            ["0-100 201", "101-200 202-9999", "10000-16383"],
        ] {
            assert_ne!(fingerprint(0, &other), same, "{other:?}");
        }
        assert_ne!(fingerprint(0, &["0-9999", "10000-16383"]), same);
    }

    #[test]
    fn slots_on_the_move_or_without_a_primary_make_no_partition() {
        for slots in [
            ["0-100 200 [200->-abc]", THREE[1], THREE[2]],
            ["0-100 200 [300-<-abc]", THREE[1], THREE[2]],
            ["0-100", THREE[1], THREE[2]],
            [THREE[0], THREE[1], "10000-16382"],
            [THREE[0], THREE[1], "9999-16383"],
            [THREE[0], THREE[1], "10000-16384"],
            [THREE[0], THREE[1], "16383-10000"],
        ] {
            assert_eq!(read(0, &slots), None, "{slots:?}");
        }
        // A replica, or a primary without slots.
        assert_eq!(read(3, &THREE), None);
        assert_eq!(read(3, &[THREE[0], THREE[1], THREE[2], ""]), None);
        assert_eq!(Partition::read(""), None);
    }
}
