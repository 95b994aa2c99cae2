//! The map of slots to nodes.

use std::collections::{BTreeSet, HashMap};

use crc::{CRC_16_XMODEM, Crc};
use redis::{FromRedisValue, Value};

use crate::store::redis::wire::address::Address;

pub(super) const SLOTS: u16 = 16384;

/// The slot of a key, computed from its hash tag if it has one
/// ([specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags)).
pub(crate) fn slot_of(key: &str) -> u16 {
    const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let hashed = match tag {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => key,
    };
    CRC.checksum(hashed.as_bytes()) % SLOTS
}

/// A node's claim about some slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) first: u16,
    pub(super) last: u16,
    /// The configuration epoch of the claim. Every failover and every migration of a slot increments it.
    pub(super) epoch: u64,
    pub(super) primary: Address,
}

/// A range of consecutive slots that one node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Address,
}

/// Reads the replies to `CLUSTER SLOTS`, which contains addresses, and `CLUSTER NODES`, which contains epochs.
pub(super) fn claims(slots: Value, nodes: &str, asked: &Address) -> Option<Vec<Claim>> {
    let mut epochs = HashMap::new();
    for line in nodes.lines() {
        let mut words = line.split(' ');
        let (id, epoch) = (words.next()?, words.nth(5)?);
        epochs.insert(id, epoch.parse().ok()?);
    }
    let rows = Vec::<Vec<Value>>::from_redis_value(slots).ok()?;
    let mut claims = Vec::with_capacity(rows.len());
    for row in rows {
        let mut row = row.into_iter();
        let first = u16::from_redis_value(row.next()?).ok()?;
        let last = u16::from_redis_value(row.next()?).ok()?;
        let mut primary = Vec::<Value>::from_redis_value(row.next()?)
            .ok()?
            .into_iter();
        let host = Option::<String>::from_redis_value(primary.next()?).ok()?;
        let port = u16::from_redis_value(primary.next()?).ok()?;
        let id = String::from_redis_value(primary.next()?).ok()?;
        let epoch = *epochs.get(&*id)?;
        // Another node may know the endpoint.
        claims.extend(
            address(host.as_deref().unwrap_or_default(), port, asked).map(|primary| Claim {
                first,
                last,
                epoch,
                primary,
            }),
        );
    }
    Some(claims)
}

/// The address of a node, as reported by the node that was `asked`; `None` if that node does not know it
/// ([`CLUSTER SLOTS`](https://redis.io/docs/latest/commands/cluster-slots/)).
fn address(host: &str, port: u16, asked: &Address) -> Option<Address> {
    let host = match host {
        // Null and the empty string mean the host of the node that was asked.
        "" => &asked.host,
        // The cluster prefers hostnames, and the hostname of this node is unknown.
        "?" => return None,
        host => host,
    };
    Address::new(host, port)
}

/// Determines the primary of each slot from the claims of several nodes.
///
/// The claim with the highest epoch wins, as among the nodes themselves, so a node that does not know of a failover yet
/// is overruled. But a node's own claim to a slot takes precedence over the claims of others, because a node that
/// receives a slot by migration may have a lower epoch than the node that gave it away.
pub(super) fn resolve(answers: &[(Address, Vec<Claim>)]) -> Vec<Range> {
    let asked: BTreeSet<&Address> = answers.iter().map(|(asked, _)| asked).collect();
    // A claim about another node that was itself asked ranks lower, whatever its epoch. It decides for a slot that was
    // given away while the receiving node does not know of that yet.
    let rank = |says: &Address, claim: &Claim| {
        let knows_best = claim.primary == *says || !asked.contains(&claim.primary);
        (knows_best, claim.epoch)
    };
    let end = |claim: &Claim| claim.last.min(SLOTS - 1) + 1;
    // From one bound to the next, all slots are claimed by the same nodes.
    let claims = answers.iter().flat_map(|(_, claims)| claims);
    let bounds: BTreeSet<u16> = claims.flat_map(|claim| [claim.first, end(claim)]).collect();
    let bounds = Vec::from_iter(bounds);
    let at = |slot| bounds.partition_point(|&bound| bound < slot);
    let mut owners = vec![None; bounds.len()];
    for (says, claims) in answers {
        for claim in claims {
            let rank = rank(says, claim);
            let claimed = owners.get_mut(at(claim.first)..at(end(claim)));
            for owner in claimed.into_iter().flatten() {
                if owner.is_none_or(|(best, _)| best < rank) {
                    *owner = Some((rank, claim));
                }
            }
        }
    }
    let mut ranges: Vec<Range> = Vec::new();
    for (bounds, owner) in bounds.windows(2).zip(owners) {
        if let Some((_, owner)) = owner {
            append(&mut ranges, bounds[0], bounds[1] - 1, &owner.primary);
        }
    }
    ranges
}

/// Appends a range, as a part of the last one if it continues that.
pub(super) fn append(ranges: &mut Vec<Range>, first: u16, last: u16, primary: &Address) {
    match ranges.last_mut() {
        Some(range) if range.last + 1 == first && range.primary == *primary => range.last = last,
        _ => ranges.push(Range {
            first,
            last,
            primary: primary.clone(),
        }),
    }
}

/// Reads the target of `MOVED <slot> <host>:<port>` or `ASK …`; `None` if it names no target.
pub(super) fn redirection(details: &str, asked: &Address) -> Option<Address> {
    let (host, port) = details.split(' ').nth(1)?.rsplit_once(':')?;
    address(host, port.parse().ok()?, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Address {
        address(host, port, &Address::parse("asked", 1).unwrap()).unwrap()
    }

    fn claim(first: u16, last: u16, epoch: u64, port: u16) -> Claim {
        Claim {
            first,
            last,
            epoch,
            primary: node("h", port),
        }
    }

    #[test]
    fn a_slot_is_that_of_the_hash_tag() {
        // From the specification of the cluster, and CLUSTER KEYSLOT.
        assert_eq!(slot_of("123456789"), 0x31C3);
        assert_eq!(slot_of("t:{user1000}"), slot_of("u:v:{user1000}"));
        assert_eq!(slot_of("foo{}{bar}"), 8363);
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
        assert_eq!(slot_of("foo{bar}{zap}"), slot_of("bar"));
    }

    #[test]
    fn the_highest_epoch_settles_a_slot() {
        let stale = vec![claim(0, 99, 1, 1), claim(100, 16383, 2, 2)];
        let fresh = vec![claim(0, 99, 3, 3), claim(100, 16383, 2, 2)];
        let split = vec![claim(50, 60, 4, 4)];
        let mut said = vec![
            (node("h", 1), stale),
            (node("x", 1), fresh),
            (node("x", 2), split),
        ];
        let expected = vec![
            range(0, 49, 3),
            range(50, 60, 4),
            range(61, 99, 3),
            range(100, 16383, 2),
        ];
        assert_eq!(resolve(&said), expected);
        said.reverse();
        assert_eq!(resolve(&said), expected);
    }

    #[test]
    fn a_node_knows_best_what_it_gave_away() {
        let giver = (node("h", 1), vec![claim(0, 9, 9, 1)]);
        let taker = (node("h", 2), vec![claim(10, 19, 7, 2)]);
        let other = (node("h", 3), vec![claim(0, 19, 9, 1)]);
        let expected = [range(0, 9, 1), range(10, 19, 2)];
        // A slot belongs to the receiving node even before that node knows of it.
        let early = (node("h", 1), vec![claim(0, 9, 9, 1), claim(10, 19, 7, 2)]);
        let unaware = (node("h", 2), Vec::new());
        assert_eq!(resolve(&[early, unaware]), expected);
        assert_eq!(resolve(&[other, giver, taker]), expected);
    }

    #[test]
    fn slots_that_cannot_be_are_left_out() {
        let says = |claim| [(node("h", 1), vec![claim])];
        assert_eq!(resolve(&says(claim(7, 65535, 1, 1))), [range(7, 16383, 1)]);
        assert_eq!(resolve(&says(claim(9, 7, 1, 1))), []);
        assert_eq!(resolve(&says(claim(20000, 20001, 1, 1))), []);
    }

    fn range(first: u16, last: u16, port: u16) -> Range {
        Range {
            first,
            last,
            primary: node("h", port),
        }
    }

    #[test]
    fn redirections_are_read() {
        let asked = Address::parse("asked", 1).unwrap();
        for (details, expected) in [
            ("3999 10.0.0.1:6381", Some(node("10.0.0.1", 6381))),
            ("3999 ::1:6381", Some(node("::1", 6381))),
            (
                "3999 redis-1.example:6381",
                Some(node("redis-1.example", 6381)),
            ),
            ("3999 :6381", Some(node("asked", 6381))),
            ("3999 ?:6381", None),
            ("3999", None),
            ("3999 nowhere", None),
            ("3999 a\nb:6381", None),
        ] {
            assert_eq!(redirection(details, &asked), expected, "{details}");
        }
    }
}
