//! Each thread is a task that looks up, and then a worker that runs what the lookups of its task have spawned. (A task
//! that another worker ran would not notice.) In the end, each lookup must have been sent once, or have failed.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use loom::{model, thread};
use tokio::time::Instant;

use super::batch::{Batch, Limits, NextBatch, Todo, Turn};

const MS: Duration = Duration::from_millis(1);
/// No lookup of a test exceeds them.
const NO_LIMITS: Limits = Limits {
    lookups: usize::MAX,
    bytes: usize::MAX,
    age: Duration::from_secs(1),
};

#[derive(Clone, Copy, Debug, PartialEq)]
struct Lookup {
    name: char,
    deadline: Instant,
    bytes: usize,
}

/// One who waits for a reply, and fails if he is dropped before.
struct Waiting {
    lookup: Lookup,
    world: Arc<World>,
}

/// What the threads of a model share.
struct World {
    next: NextBatch<Vec<Lookup>, Waiting>,
    limits: Limits,
    start: Instant,
    /// What has become of lookups. No decision depends on it, so that loom need not see it.
    outcomes: Mutex<Outcomes>,
}

#[derive(Debug, Default)]
struct Outcomes {
    batches: Vec<String>,
    failed: Vec<char>,
}

/// What a runtime does with the tasks that it is given.
#[derive(Clone, Copy)]
enum Runtime {
    Runs,
    /// Drops them after so many polls, of the two that a turn takes.
    ShutsDown(usize),
}

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Work = Box<dyn FnOnce(&Arc<World>)>;

impl World {
    fn new(limits: Limits, start: Instant) -> Arc<Self> {
        Arc::new(Self {
            next: NextBatch::new(limits),
            limits,
            start,
            outcomes: Mutex::default(),
        })
    }

    /// Does what `Lookups::enqueue` does. Returns what is spawned.
    fn look_up(self: &Arc<Self>, name: char, after: Duration, bytes: usize) -> Option<Task> {
        let deadline = self.start + after;
        let lookup = Lookup {
            name,
            deadline,
            bytes,
        };
        let world = Arc::clone(self);
        let waiting = Waiting { lookup, world };
        let add_commands = |commands: &mut Vec<Lookup>| commands.push(lookup);
        let world = Arc::clone(self);
        match self.next.add(deadline, bytes, waiting, add_commands) {
            Todo::Nothing => None,
            Todo::Turn => {
                let turn = Turn::new(move || {
                    let batch = world.next.take()?;
                    Some((world, batch))
                });
                Some(Box::pin(async move {
                    if let Some((world, batch)) = turn.come().await {
                        world.send(batch);
                    }
                }))
            }
            Todo::Send(batch) => Some(Box::pin(async move { world.send(batch) })),
        }
    }

    fn send(&self, batch: Batch<Vec<Lookup>, Waiting>) {
        let waiting = batch.waiting.iter().map(|waiting| waiting.lookup);
        // Replies come in the order of commands.
        assert!(waiting.eq(batch.commands.iter().copied()));
        let lookups = &batch.commands;
        let (_last, others) = lookups.split_last().expect("a lookup in the batch");
        assert!(lookups.len() <= self.limits.lookups);
        assert!(others.iter().map(|other| other.bytes).sum::<usize>() < self.limits.bytes);
        let age = |other: &Lookup| {
            other
                .deadline
                .saturating_duration_since(lookups[0].deadline)
        };
        assert!(others.iter().all(|other| age(other) <= self.limits.age));
        let deadlines = lookups.iter().map(|lookup| lookup.deadline);
        assert_eq!(deadlines.max(), Some(batch.last_deadline));
        let names = lookups.iter().map(|lookup| lookup.name).collect();
        self.outcomes.lock().expect("no panic").batches.push(names);
        // They have their replies.
        batch.waiting.into_iter().for_each(mem::forget);
    }

    /// The outcomes of all lookups, each of whom has one.
    fn outcomes_of(&self, names: &str) -> Outcomes {
        assert!(self.next.take().is_none(), "a batch that nobody sends");
        let outcomes = mem::take(&mut *self.outcomes.lock().expect("no panic"));
        let sent = outcomes.batches.iter().flat_map(|batch| batch.chars());
        let mut all: Vec<_> = sent.chain(outcomes.failed.iter().copied()).collect();
        all.sort_unstable();
        assert_eq!(String::from_iter(all), names);
        outcomes
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut outcomes = self.world.outcomes.lock().expect("no panic");
        outcomes.failed.push(self.lookup.name);
    }
}

impl Runtime {
    fn run(self, tasks: impl IntoIterator<Item = Task>) {
        let polls = match self {
            Self::Runs => usize::MAX,
            Self::ShutsDown(polls) => polls,
        };
        for mut task in tasks {
            let mut context = Context::from_waker(Waker::noop());
            let _ = (0..polls).find(|_| task.as_mut().poll(&mut context).is_ready());
        }
    }
}

/// Runs threads at the same time, and waits for them.
fn run_threads(world: &Arc<World>, threads: Vec<Work>) {
    let threads = threads.into_iter().map(|work| {
        let world = Arc::clone(world);
        thread::spawn(move || work(&world))
    });
    let threads: Vec<_> = threads.collect();
    for thread in threads {
        thread.join().expect("a thread");
    }
}

/// A thread that looks up once.
fn one(runtime: Runtime, name: char, after: Duration, bytes: usize) -> Work {
    Box::new(move |world| runtime.run(world.look_up(name, after, bytes)))
}

/// A thread that looks up again before what it has spawned runs.
fn two(runtime: Runtime, names: [char; 2]) -> Work {
    Box::new(move |world| {
        let tasks = names.map(|name| world.look_up(name, MS, 1));
        runtime.run(tasks.into_iter().flatten());
    })
}

/// Runs a model in which all lookups are sent.
fn all_are_sent(
    limits: Limits,
    names: &'static str,
    threads: impl Fn() -> Vec<Work> + Send + Sync + 'static,
) {
    let start = Instant::now();
    model(move || {
        let world = World::new(limits, start);
        run_threads(&world, threads());
        let outcomes = world.outcomes_of(names);
        assert!(outcomes.failed.is_empty(), "{outcomes:?}");
    });
}

#[test]
fn all_who_look_up_at_the_same_time_are_sent() {
    all_are_sent(NO_LIMITS, "abc", || {
        let one = |name| one(Runtime::Runs, name, MS, 1);
        "abc".chars().map(one).collect()
    });
}

#[test]
fn a_full_batch_is_sent_and_its_turn_takes_the_next() {
    for lookups in [1, 2, 3] {
        let limits = Limits {
            lookups,
            ..NO_LIMITS
        };
        all_are_sent(limits, "abcd", || {
            let one = |name| one(Runtime::Runs, name, MS, 1);
            vec![one('a'), one('b'), two(Runtime::Runs, ['c', 'd'])]
        });
    }
}

#[test]
fn a_batch_with_long_keys_is_sent() {
    let limits = Limits {
        bytes: 100,
        ..NO_LIMITS
    };
    all_are_sent(limits, "abc", || {
        let one = |(name, bytes)| one(Runtime::Runs, name, MS, bytes);
        let all = [('a', 60), ('b', 50), ('c', 200)];
        all.map(one).into()
    });
}

#[test]
fn an_old_batch_is_sent() {
    let limits = Limits {
        age: MS,
        ..NO_LIMITS
    };
    all_are_sent(limits, "abc", || {
        let one = |(name, after)| one(Runtime::Runs, name, after * MS, 1);
        let all = [('a', 0), ('b', 1), ('c', 3)];
        all.map(one).into()
    });
}

/// Nobody waits for a runtime that is gone, and those whose runtime is there are sent.
#[test]
fn when_a_runtime_shuts_down_nobody_waits_and_the_next_lookup_has_a_new_turn() {
    for polls in [0, 1] {
        let start = Instant::now();
        model(move || {
            let limits = Limits {
                lookups: 2,
                ..NO_LIMITS
            };
            let world = World::new(limits, start);
            let gone = Runtime::ShutsDown(polls);
            let threads = vec![
                one(gone, 'a', MS, 1),
                one(Runtime::Runs, 'b', MS, 1),
                two(gone, ['c', 'd']),
            ];
            run_threads(&world, threads);
            world.outcomes_of("abcd");
            Runtime::Runs.run(world.look_up('e', MS, 1));
            assert_eq!(world.outcomes_of("e").batches, ["e"]);
        });
    }
}

/// A rule that one pipeline for each lookup would not keep.
#[test]
fn those_who_look_up_before_the_turn_share_a_batch() {
    let start = Instant::now();
    model(move || {
        let world = World::new(NO_LIMITS, start);
        let turn = world.look_up('a', MS, 1);
        let others = ["b", "c"].map(|name| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let name = name.chars().next().expect("a name");
                assert!(world.look_up(name, MS, 1).is_none());
            })
        });
        for other in others {
            other.join().expect("a thread");
        }
        Runtime::Runs.run(turn);
        let batches = world.outcomes_of("abc").batches;
        assert!(batches == ["abc"] || batches == ["acb"], "{batches:?}");
    });
}
