//! The value of an entry is the number of the last change at the server. The server changes before it announces that.
//!
//! Every hit asserts the rule of the cache: the value is not older than a change whose announcement was handled before.

use loom::{
    model,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::table::{Table, Ticket};
use crate::sync::bounded_model;

const OWNER: &str = "al";
const KEY: u64 = 1;
/// Room for all values of a test.
const PLENTY: usize = 64 * 1024;
/// Of each thread of a model of three. A model of two has no such bound.
const PREEMPTIONS: usize = 3;

/// What the threads of a model share.
struct World {
    table: Table<u64, u64>,
    /// The last change at the server.
    changed: AtomicU64,
    /// The last change whose announcement was handled.
    announced: AtomicU64,
}

impl World {
    /// One counter for all owners, and one shard.
    fn with_bytes(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Table::with_parts(bytes, 1, 1),
            changed: AtomicU64::new(0),
            announced: AtomicU64::new(0),
        })
    }

    /// The ticket of a read, and what it reads.
    fn read(&self) -> (Ticket, u64) {
        let ticket = self.table.begin(OWNER);
        (ticket, self.changed.load(Ordering::SeqCst))
    }

    fn finish(&self, key: u64, (ticket, value): (Ticket, u64)) {
        self.table.finish(ticket, key, value, 0);
    }

    /// A hit, or else a read that fills the cache.
    fn look_up(&self, key: u64) {
        if self.hit(key).is_none() {
            self.finish(key, self.read());
        }
    }

    fn hit(&self, key: u64) -> Option<u64> {
        let announced = self.announced.load(Ordering::SeqCst);
        let value = self.table.hit(OWNER, &key, |value| Some(*value))?;
        assert!(value >= announced, "{value} was served after {announced}");
        Some(value)
    }

    /// A change at the server, and its announcement.
    fn change(&self, to: u64, announce: impl FnOnce(&Table<u64, u64>)) {
        self.changed.store(to, Ordering::SeqCst);
        announce(&self.table);
        self.announced.store(to, Ordering::SeqCst);
    }

    fn invalidate(&self, change: u64) {
        self.change(change, |table| table.invalidate(OWNER));
    }
}

/// Runs `work` in a thread of the model.
fn spawn(world: &Arc<World>, work: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || work(&world))
}

/// Two readers, and a writer between.
fn two_readers(
    bytes: usize,
    first: impl Fn(&World) + Copy + Send + Sync + 'static,
    second: impl Fn(&World) + Copy + Send + Sync + 'static,
    writer: impl Fn(&World) + Send + Sync + 'static,
) {
    bounded_model(PREEMPTIONS, move || {
        let world = World::with_bytes(bytes);
        let readers = [spawn(&world, first), spawn(&world, second)];
        writer(&world);
        for reader in readers {
            reader.join().expect("a reader");
        }
        world.hit(KEY);
        world.hit(KEY + 1);
    });
}

#[test]
fn a_change_while_one_reads_and_one_hits() {
    two_readers(
        PLENTY,
        |world| world.finish(KEY, world.read()),
        |world| {
            world.hit(KEY);
        },
        |world| world.invalidate(1),
    );
}

#[test]
fn a_change_while_two_look_up() {
    let look_up = |world: &World| world.look_up(KEY);
    two_readers(PLENTY, look_up, look_up, |world| world.invalidate(1));
}

#[test]
fn two_changes_while_one_reads_and_one_hits() {
    two_readers(
        PLENTY,
        |world| world.finish(KEY, world.read()),
        |world| {
            world.hit(KEY);
        },
        |world| {
            world.invalidate(1);
            world.invalidate(2);
        },
    );
}

#[test]
fn a_clearing_while_one_reads_and_one_hits() {
    two_readers(
        PLENTY,
        |world| world.finish(KEY, world.read()),
        |world| {
            world.hit(KEY);
        },
        |world| world.change(1, Table::clear),
    );
}

/// Without a bound: a reader that looks up, and a writer.
#[test]
fn a_change_while_one_looks_up() {
    model(|| {
        let world = World::with_bytes(PLENTY);
        let reader = spawn(&world, |world| {
            world.look_up(KEY);
            world.hit(KEY);
        });
        world.invalidate(1);
        world.hit(KEY);
        reader.join().expect("a reader");
        world.hit(KEY);
    });
}

#[test]
fn a_change_while_one_hits_again_and_again() {
    model(|| {
        let world = World::with_bytes(PLENTY);
        world.look_up(KEY);
        let reader = spawn(&world, |world| {
            let first = world.hit(KEY);
            let second = world.hit(KEY);
            assert!(
                first.is_some() || second.is_none(),
                "a void value came back"
            );
        });
        world.invalidate(1);
        assert_eq!(world.hit(KEY), None);
        reader.join().expect("a reader");
    });
}

/// A read that began before everything else, and ends at any time.
#[test]
fn a_change_while_an_old_read_is_on_its_way() {
    bounded_model(PREEMPTIONS, || {
        let world = World::with_bytes(PLENTY);
        let old = world.read();
        let reader = spawn(&world, move |world| {
            world.finish(KEY, old);
            world.hit(KEY);
        });
        let other = spawn(&world, |world| world.look_up(KEY));
        world.invalidate(1);
        reader.join().expect("a reader");
        other.join().expect("a reader");
        world.hit(KEY);
    });
}

/// A read that is given up is not finished.
#[test]
fn a_change_while_a_read_is_given_up() {
    two_readers(
        PLENTY,
        |world| {
            let _given_up = world.read();
        },
        |world| world.look_up(KEY),
        |world| world.invalidate(1),
    );
}

/// There is room for one value, so that each reader evicts that of the other.
#[test]
fn a_change_while_two_evict_each_other() {
    // A value may take an eighth of a shard.
    let bytes = 8 * bytes_of_one();
    two_readers(
        bytes,
        move |world| {
            for filler in 10..16 {
                world.finish(filler, world.read());
            }
            world.look_up(KEY);
        },
        |world| world.look_up(KEY + 1),
        |world| world.invalidate(1),
    );
}

/// A rule that a cache without any value would not keep.
#[test]
fn what_has_not_changed_is_found() {
    model(|| {
        let world = World::with_bytes(PLENTY);
        let reader = spawn(&world, |world| world.look_up(KEY));
        world.look_up(KEY);
        assert_eq!(world.hit(KEY), Some(0));
        reader.join().expect("a reader");
        assert_eq!(world.hit(KEY), Some(0));
    });
}

/// What one value takes in a table.
fn bytes_of_one() -> usize {
    let bytes = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let result = std::sync::Arc::clone(&bytes);
    model(move || {
        let world = World::with_bytes(PLENTY);
        let empty = world.table.health(0).bytes;
        world.look_up(KEY);
        result.store(
            world.table.health(0).bytes - empty,
            std::sync::atomic::Ordering::Relaxed,
        );
    });
    bytes.load(std::sync::atomic::Ordering::Relaxed)
}
