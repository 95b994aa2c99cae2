//! Random sequences of all operations of a store, against a simple model of what must come of them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, TestRunner},
};
use tokio::{
    runtime::{self, Handle},
    task::block_in_place,
};
use tower_bearer_session::MemoryStore;

use self::{
    operations::{Operation, operations},
    reference::Model,
};
use crate::stores::{Backend, DAY, HOUR, log_in, on_every_store, token_id};

mod operations;
mod reference;

on_every_store!(stores_do_what_the_model_says);

/// No time passes that would matter: everything lives for hours. Operations go over two handles in turn.
async fn stores_do_what_the_model_says(backend: &impl Backend) {
    let stores = [backend.store().await, backend.store().await];
    // Every case has users of its own.
    let cases = AtomicUsize::new(0);
    let ttls = [HOUR, 2 * HOUR, DAY, Duration::from_millis(5_000_001)];
    check_sequences(256, &operations(&ttls, None), |operations| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let case = async {
            let mut model = Model::new(case, SystemTime::UNIX_EPOCH, false);
            for (operation, store) in operations.iter().zip(stores.iter().cycle()) {
                model.apply(store, operation).await;
            }
            model.compare(&stores[0]).await;
        };
        Handle::current().block_on(case);
    });
}

/// Time is an operation like the others, and the model knows it exactly.
#[test]
fn memory_does_what_the_model_says_as_time_goes_by() {
    let ttls = [1, 2, 10, 50, 100, 1000].map(Duration::from_millis);
    check_sequences(2000, &operations(&ttls, Some(0..60)), |operations| {
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let now = log_in(&store, "clock", &token_id(0)).await.created_at;
            let mut model = Model::new(0, now, true);
            for operation in &operations {
                model.apply(&store, operation).await;
            }
            model.compare(&store).await;
        });
    });
}

/// Runs so many sequences; a failing one is shrunk and printed.
fn check_sequences(
    cases: u32,
    operations: &impl Strategy<Value = Vec<Operation>>,
    case: impl Fn(Vec<Operation>),
) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = block_in_place(|| {
        TestRunner::new(config).run(operations, |operations| {
            case(operations);
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
