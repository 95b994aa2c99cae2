use std::collections::BTreeMap;

use super::map::{Range, append};
use crate::store::redis::wire::address::Address;

/// The primary of each slot, and a handle for each primary.
pub(super) struct SlotMap<N> {
    primaries: Vec<(Address, N)>,
    /// Sorted and disjoint.
    ranges: Vec<Held>,
}

/// A range of consecutive slots, and the index of their primary.
#[derive(Clone, Copy)]
struct Held {
    first: u16,
    last: u16,
    primary: usize,
}

impl<N: Clone> SlotMap<N> {
    pub(super) fn new(ranges: &[Range], mut handle: impl FnMut(&Address) -> N) -> Self {
        let mut indices = BTreeMap::new();
        let mut primaries = Vec::new();
        let ranges = ranges.iter().map(|range| Held {
            first: range.first,
            last: range.last,
            primary: *indices.entry(&range.primary).or_insert_with(|| {
                primaries.push((range.primary.clone(), handle(&range.primary)));
                primaries.len() - 1
            }),
        });
        Self {
            ranges: ranges.collect(),
            primaries,
        }
    }

    /// Returns a copy of the map in which one slot has another primary.
    pub(super) fn with_moved(&self, slot: u16, to: &Address, handle: &N) -> Self {
        let mut primaries = self.primaries.clone();
        let known = primaries.iter().position(|(address, _)| address == to);
        let primary = known.unwrap_or_else(|| {
            primaries.push((to.clone(), handle.clone()));
            primaries.len() - 1
        });
        let moved = Held {
            first: slot,
            last: slot,
            primary,
        };
        let split = self.ranges.partition_point(|held| held.last < slot);
        let (before, rest) = self.ranges.split_at(split);
        let mut ranges = before.to_vec();
        match rest.split_first() {
            Some((held, after)) if held.first <= slot => {
                let (first, last) = (held.first, held.last);
                ranges.extend((first < slot).then(|| Held {
                    last: slot - 1,
                    ..*held
                }));
                ranges.push(moved);
                ranges.extend((slot < last).then(|| Held {
                    first: slot + 1,
                    ..*held
                }));
                ranges.extend(after);
            }
            _ => {
                ranges.push(moved);
                ranges.extend(rest);
            }
        }
        Self { primaries, ranges }
    }

    /// The primary of a slot.
    pub(super) fn primary(&self, slot: u16) -> Option<&(Address, N)> {
        let next = self.ranges.partition_point(|held| held.last < slot);
        let held = self.ranges.get(next)?;
        (held.first <= slot).then(|| &self.primaries[held.primary])
    }

    /// The ranges of slots, as long as they can be.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let mut ranges = Vec::new();
        for held in &self.ranges {
            let (primary, _) = &self.primaries[held.primary];
            append(&mut ranges, held.first, held.last, primary);
        }
        ranges
    }

    /// The distinct primaries that hold slots.
    pub(super) fn primaries(&self) -> impl Iterator<Item = &(Address, N)> {
        let mut indices: Vec<_> = self.ranges.iter().map(|held| held.primary).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().map(|index| &self.primaries[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Address {
        Address {
            host: "h".to_owned(),
            port,
        }
    }

    fn range(first: u16, last: u16, port: u16) -> Range {
        Range {
            first,
            last,
            primary: node(port),
        }
    }

    #[test]
    fn a_move_changes_one_slot_and_no_other() {
        let ranges = [range(0, 9, 1), range(10, 10, 2), range(20, 29, 1)];
        let map = SlotMap::new(&ranges, |address| address.port);
        for moved in 0..32 {
            for to in 1..=3 {
                let changed = map.with_moved(moved, &node(to), &to);
                for slot in 0..40 {
                    let expected = if slot == moved {
                        Some(to)
                    } else {
                        map.primary(slot).map(|(_, port)| *port)
                    };
                    let found = changed.primary(slot).map(|(_, port)| *port);
                    assert_eq!(found, expected, "slot {slot}, {moved} moved to {to}");
                }
            }
        }
    }

    /// So that a map compares with what a node says of it.
    #[test]
    fn ranges_are_as_long_as_they_can_be() {
        let ranges = [range(0, 9, 1), range(10, 10, 2), range(20, 29, 1)];
        let map = SlotMap::new(&ranges, |address| address.port);
        assert_eq!(map.ranges(), ranges);
        let moved = map.with_moved(10, &node(1), &1);
        assert_eq!(moved.ranges(), [range(0, 10, 1), range(20, 29, 1)]);
        let back = moved.with_moved(10, &node(2), &2);
        assert_eq!(back.ranges(), map.ranges());
        assert_eq!(back.primaries().count(), 2);
    }

    #[test]
    fn primaries_are_those_that_hold_a_slot() {
        let ranges = [range(0, 9, 1), range(10, 10, 2), range(20, 29, 1)];
        let map = SlotMap::new(&ranges, |address| address.port);
        let ports = |map: &SlotMap<u16>| map.primaries().map(|(_, port)| *port).collect::<Vec<_>>();
        assert_eq!(ports(&map), [1, 2]);
        assert_eq!(ports(&map.with_moved(10, &node(3), &3)), [1, 3]);
        assert_eq!(ports(&map.with_moved(11, &node(3), &3)), [1, 2, 3]);
    }
}
