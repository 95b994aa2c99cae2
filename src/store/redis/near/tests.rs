//! Tests of the table in one thread; `tests/models` has those of all interleavings.

use std::time::{Duration, SystemTime};

use super::{
    NearCache, next_end,
    table::{Table, Ticket},
};
use crate::{
    TokenId,
    store::{NewSession, NewToken, Rotation, SessionRecord},
};

type Numbers = Table<u64, u64>;

fn put(table: &Numbers, owner: &str, key: u64, value: u64) {
    let ticket = table.begin(owner);
    table.finish(ticket, key, value, 0);
}

fn get(table: &Numbers, owner: &str, key: u64) -> Option<u64> {
    table.hit(owner, &key, |value| Some(*value))
}

/// A table in which the two owners of the tests do not share a counter.
fn table() -> Numbers {
    loop {
        let table = Table::new(1024 * 1024);
        put(&table, "bo", 0, 0);
        table.invalidate("al");
        if get(&table, "bo", 0).is_some() {
            return table;
        }
    }
}

#[test]
fn what_was_read_is_found_under_its_key_and_owner() {
    let table = table();
    put(&table, "al", 1, 10);
    put(&table, "al", 2, 20);
    assert_eq!(get(&table, "al", 1), Some(10));
    assert_eq!(get(&table, "al", 2), Some(20));
    assert_eq!(get(&table, "al", 3), None);
    assert_eq!(get(&table, "bo", 1), None, "of another owner");
    put(&table, "al", 1, 11);
    assert_eq!(get(&table, "al", 1), Some(11));
}

#[test]
fn an_invalidation_is_of_all_values_of_one_owner() {
    let table = table();
    for (owner, key) in [("al", 1), ("al", 2), ("bo", 3)] {
        put(&table, owner, key, key);
    }
    table.invalidate("al");
    assert_eq!([1, 2].map(|key| get(&table, "al", key)), [None; 2]);
    assert_eq!(get(&table, "bo", 3), Some(3));
    put(&table, "al", 1, 4);
    assert_eq!(get(&table, "al", 1), Some(4));
}

#[test]
fn what_was_invalidated_while_it_was_read_is_not_kept() {
    let table = table();
    for void in [|table: &Numbers| table.invalidate("al"), Numbers::clear] {
        let ticket = table.begin("al");
        void(&table);
        table.finish(ticket, 1, 1, 0);
        assert_eq!(get(&table, "al", 1), None);
    }
}

#[test]
fn a_clearing_is_of_everything() {
    let table = table();
    put(&table, "al", 1, 1);
    put(&table, "bo", 2, 2);
    table.clear();
    assert_eq!([get(&table, "al", 1), get(&table, "bo", 2)], [None; 2]);
}

/// A read that is given up leaves nothing that had to be cleared.
#[test]
fn a_ticket_needs_no_drop() {
    assert!(!std::mem::needs_drop::<Ticket>());
}

#[test]
fn a_value_may_decline() {
    let table = table();
    put(&table, "al", 1, 1);
    assert_eq!(table.hit("al", &1, |_| None::<u64>), None);
    assert_eq!(get(&table, "al", 1), Some(1));
}

#[test]
fn the_table_never_takes_more_than_its_bytes() {
    const BYTES: usize = 256 * 1024;
    let table = Numbers::new(BYTES);
    for key in 0..10_000 {
        let ticket = table.begin("al");
        table.finish(ticket, key, key, (key % 7) as usize * 100);
        assert!(table.health(0).bytes <= BYTES, "{}", table.health(0).bytes);
    }
    assert!(
        table.health(0).bytes > BYTES / 2,
        "{}",
        table.health(0).bytes
    );
    let kept = (0..10_000).filter(|key| get(&table, "al", *key).is_some());
    let kept = kept.count();
    assert!(kept > 100, "{kept}");
    // What is as large as everything else together is not kept, and evicts nothing.
    let ticket = table.begin("al");
    table.finish(ticket, 10_000, 0, BYTES / 2);
    assert_eq!(get(&table, "al", 10_000), None);
    let left = (0..10_000).filter(|key| get(&table, "al", *key).is_some());
    assert_eq!(left.count(), kept);
}

#[test]
fn what_is_used_stays() {
    let table = Numbers::new(256 * 1024);
    put(&table, "al", 0, 0);
    for key in 1..10_000 {
        put(&table, "bo", key, key);
        assert_eq!(get(&table, "al", 0), Some(0), "after {key}");
    }
}

/// Otherwise they would keep their places as long as anything else is not used.
#[test]
fn what_is_void_goes_before_what_is_valid() {
    let table = Numbers::new(256 * 1024);
    let mut fits = 0;
    let mut bytes = 0;
    while table.health(0).bytes > bytes {
        bytes = table.health(0).bytes;
        put(&table, "al", fits, 0);
        fits += 1;
    }
    assert!(fits > 100);
    table.clear();
    for key in 0..fits {
        put(&table, "al", key, 0);
        get(&table, "al", key);
    }
    table.invalidate("al");
    for key in fits..fits * 3 / 2 {
        put(&table, "bo", key, 0);
        get(&table, "bo", key);
    }
    let kept = (fits..fits * 3 / 2).filter(|key| get(&table, "bo", *key).is_some());
    assert_eq!(kept.count() as u64, fits * 3 / 2 - fits);
}

#[test]
fn the_settings_are_checked() {
    let near = NearCache::new;
    near().validate().unwrap();
    for good in [50, 10_000] {
        let staleness = Duration::from_millis(good);
        near().max_staleness(staleness).validate().unwrap();
    }
    for (bad, part) in [
        (near().max_bytes(1000), "max_bytes"),
        (
            near().max_staleness(Duration::from_millis(49)),
            "max_staleness",
        ),
        (
            near().max_staleness(Duration::from_millis(10_001)),
            "max_staleness",
        ),
    ] {
        let error = bad.validate().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// The verdict on a replaced token changes when its grace ends, and then not again before the session ends.
#[test]
fn a_verdict_holds_until_the_next_grace_ends() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let id = |n| TokenId::from_bytes(&[n; 16]);
    let mut session = SessionRecord::begin(&NewSession::new(Duration::from_secs(100)), at(0));
    assert_eq!(next_end(&session, at(0)), at(100));
    let mut rotation = Rotation::of(id(0));
    for (n, now, grace) in [(1, 10, 20), (2, 15, 5), (3, 18, 1000)] {
        rotation.replace(&NewToken::new(id(n), Duration::from_secs(grace)), at(now));
    }
    session.rotation = Some(Box::new(rotation));
    for (now, end) in [(18, 20), (19, 20), (20, 30), (29, 30), (30, 100), (99, 100)] {
        assert_eq!(next_end(&session, at(now)), at(end), "{now}");
    }
}
