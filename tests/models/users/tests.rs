//! Threads check tokens of one user while something else happens.

use std::{sync::Arc, time::Duration};

use loom::thread::{self, JoinHandle};

use super::{
    background::drop_tasks_after,
    world::{Faults, World},
};
use crate::{Error, sync::bounded_model};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(10);
const NO_FAULTS: Faults = Faults {
    reads: false,
    writes: false,
    loads: false,
    users: false,
    memory: false,
};

fn spawn<T: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> T + 'static,
) -> JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || work(&world))
}

fn check(world: &World) {
    world.check(LONG).expect("a user");
}

/// Runs two checks while the model does something.
fn two_checks(preemptions: usize, meanwhile: impl Fn(&World) + Send + Sync + 'static, most: usize) {
    bounded_model(preemptions, move || {
        let world = World::new(NO_FAULTS);
        let checks = [spawn(&world, check), spawn(&world, check)];
        meanwhile(&world);
        for check in checks {
            check.join().expect("a check");
        }
        let (_, loads) = world.end();
        assert!(loads.most <= most, "{} loads at the same time", loads.most);
        check(&world);
        world.end();
    });
}

#[test]
fn concurrent_misses_share_a_load_and_the_shortest_ttl() {
    bounded_model(3, || {
        let world = World::new(NO_FAULTS);
        let ttls = [LONG, SHORT];
        let checks = ttls.map(|ttl| spawn(&world, move |world| world.check(ttl)));
        let mut shortest = Duration::MAX;
        for (check, ttl) in checks.into_iter().zip(ttls) {
            let was_cached = check.join().expect("a check").expect("a user");
            if !was_cached {
                shortest = shortest.min(ttl);
            }
        }
        let (cached, loads) = world.end();
        assert_eq!(cached, Some((0, shortest)));
        assert_eq!((loads.most, loads.begun), (1, 1));
    });
}

#[test]
fn three_misses_share_a_load() {
    bounded_model(3, || {
        let world = World::new(NO_FAULTS);
        let checks = [spawn(&world, check), spawn(&world, check)];
        check(&world);
        for check in checks {
            check.join().expect("a check");
        }
        let (cached, loads) = world.end();
        assert_eq!(cached, Some((0, LONG)));
        assert_eq!((loads.most, loads.begun), (1, 1));
    });
}

#[test]
fn no_load_that_began_before_an_invalidation_is_for_those_who_ask_after_it() {
    two_checks(3, |world| world.change_and_delete(1), 2);
}

#[test]
fn an_invalidation_whose_marker_is_lost_still_counts() {
    let meanwhile = |world: &World| {
        world.change_and_delete(1);
        world.expire();
    };
    two_checks(2, meanwhile, 3);
}

#[test]
fn a_user_who_is_replaced_is_not_an_old_one() {
    let meanwhile = |world: &World| {
        world.change(1);
        world.replace(LONG).expect("a user");
        check(world);
    };
    two_checks(2, meanwhile, 3);
}

/// Whatever does not work, all who wait have an outcome.
#[test]
fn a_fault_is_shared_and_leaves_nothing_behind() {
    for (reads, writes, loads) in [
        (true, true, false),
        (false, true, false),
        (false, false, true),
    ] {
        bounded_model(3, move || {
            let faults = Faults {
                reads,
                writes,
                loads,
                ..NO_FAULTS
            };
            let world = World::new(faults);
            let other = spawn(&world, |world| world.check(LONG));
            let expected = if loads { Err(Error::Loader) } else { Ok(false) };
            assert_eq!(world.check(LONG), expected);
            assert_eq!(other.join().expect("a check"), expected);
            let (cached, loads) = world.end();
            assert_eq!((cached, loads.most), (None, 1));
        });
    }
}

#[test]
fn a_user_who_cannot_be_cached_is_loaded_once_at_a_time() {
    bounded_model(3, || {
        let faults = Faults {
            users: true,
            ..NO_FAULTS
        };
        let world = World::new(faults);
        let checks = [spawn(&world, check), spawn(&world, check)];
        check(&world);
        for check in checks {
            check.join().expect("a check");
        }
        let (cached, loads) = world.end();
        assert_eq!((cached, loads.most), (None, 1));
    });
}

#[test]
fn a_store_that_keeps_nothing_is_not_asked_for_ever() {
    bounded_model(3, || {
        let faults = Faults {
            memory: true,
            ..NO_FAULTS
        };
        let world = World::new(faults);
        let other = spawn(&world, check);
        check(&world);
        other.join().expect("a check");
        let (_, loads) = world.end();
        assert!(loads.begun <= 2);
    });
}

#[test]
fn a_load_that_is_cut_short_fails_those_who_wait_and_no_others() {
    for polls in 0..6 {
        bounded_model(2, move || {
            let world = World::new(NO_FAULTS);
            let cut = spawn(&world, move |world| {
                drop_tasks_after(polls);
                world.check(LONG)
            });
            for outcome in [world.check(LONG), cut.join().expect("a check")] {
                assert!(matches!(outcome, Ok(_) | Err(Error::Interrupted)));
            }
            world.end();
            check(&world);
            let (cached, loads) = world.end();
            assert_eq!(cached, Some((0, LONG)));
            assert_eq!(loads.most, 1);
        });
    }
}
