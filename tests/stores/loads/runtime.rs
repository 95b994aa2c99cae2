use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::mpsc,
    task::{Context, Waker},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};
use tower_bearer_session::{MemoryStore, TokenManager};

use super::{LONG_TIMEOUT, log_in};

/// Outside a runtime a load cannot run: that is a panic, and not a call that never returns.
#[test]
fn without_a_runtime_a_load_panics() {
    in_time(|| {
        let (runtime, manager, token) = logged_in();
        drop(runtime);
        let mut check = pin!(manager.check_token_or_update_user(&token, None));
        let poll = || check.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
    });
}

/// A runtime that is shutting down when a load is about to begin comes to its end.
#[test]
fn a_runtime_can_shut_down_before_a_load() {
    in_time(|| {
        let (runtime, manager, token) = logged_in();
        let (running, runs) = mpsc::channel();
        runtime.spawn(async move {
            running.send(()).unwrap();
            // Busy, so that the shutdown has begun when the check does.
            thread::sleep(Duration::from_millis(300));
            // Whatever it says: its load may have run, or may have been cut short.
            let _ = manager.check_token_or_update_user(&token, None).await;
        });
        runs.recv().unwrap();
        drop(runtime);
    });
}

fn logged_in() -> (Runtime, TokenManager<String>, String) {
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let builder = TokenManager::builder(MemoryStore::new());
    let builder = builder.load_user(async |user_id| Ok::<_, Infallible>(Some(user_id)));
    let manager = builder.build().unwrap();
    let token = runtime.block_on(log_in(&manager, "al"));
    (runtime, manager, token)
}

/// Runs this on a thread of its own, which must come to its end.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        work();
        ended.send(()).unwrap();
    });
    end.recv_timeout(LONG_TIMEOUT)
        .expect("the end, and no panic");
}
