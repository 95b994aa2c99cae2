//! A service: a thread with a runtime of its own, a store, and some of the workers.
//!
//! The runtime has only this thread, so that the allocations of the thread are those of the service: the bytes that are
//! alive are counted, and not guessed from what the process has of the kernel. What one service allocates and the other
//! one frees cancels out in the sum.

use std::{
    panic,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_bearer_session::SessionStore;

use crate::{
    deployment::Deployment,
    scene::{Phase, Scene},
    stores::{HOUR, session, token_id},
    worker::Worker,
};

/// The workers of a service.
const WORKERS: usize = 3;
/// How long a store may take until it works again, on however busy a machine.
const RECOVERY: Duration = Duration::from_secs(20);
/// The users of a probe; enough for every primary of a cluster.
const PROBED: usize = 8;

/// A running service, and how it is joined with the other one.
pub(crate) struct Service<S> {
    pub(crate) thread: JoinHandle<[i64; 2]>,
    pub(crate) handle: Handle,
    pub(crate) store: S,
    /// Where it waits for all stores.
    pub(crate) stores: mpsc::Sender<Vec<S>>,
}

impl<S: SessionStore + Clone> Service<S> {
    /// Starts a service, which begins to work when it is given all stores.
    ///
    /// The thread returns how many bytes more are alive after the first part of the run, and after the second one.
    pub(crate) fn start<D: Deployment<Store = S>>(
        number: usize,
        url: String,
        scene: &Arc<Scene>,
    ) -> Self {
        let (tell, told) = mpsc::channel();
        let (stores, all) = mpsc::channel();
        let scene = Arc::clone(scene);
        let thread = thread::spawn(move || {
            let flag = FailedUnlessDone(&scene);
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let store = runtime.block_on(D::connect(url));
            let handle = runtime.handle().clone();
            tell.send((handle, store.clone())).expect("a test");
            let stores: Vec<S> = all.recv().expect("all stores");
            let workers = (0..WORKERS)
                .map(|worker| Worker::new(number * WORKERS + worker, stores.clone(), &scene));
            let mut workers: Vec<_> = workers.collect();
            let mut grown = [0; 2];
            for (part, grown) in (0..).zip(&mut grown) {
                let counted = allocation_counter::measure(|| {
                    let part = run(part, number, &mut workers, &store, &scene);
                    runtime.block_on(part);
                });
                *grown = counted.bytes_current;
            }
            flag.done();
            grown
        });
        let (handle, store) = told.recv().expect("a store");
        Self {
            thread,
            handle,
            store,
            stores,
        }
    }
}

/// Runs the workers of one part, then none, until that part is over.
async fn run<S: SessionStore + Clone>(
    part: u8,
    number: usize,
    workers: &mut Vec<Worker<S>>,
    store: &S,
    scene: &Arc<Scene>,
) {
    let mut phase = scene.phase.subscribe();
    // The other service may take longer to end the part before.
    let began = phase.wait_for(|&(now, _)| now >= part).await;
    drop(began.expect("a scene"));
    let mut prober = tokio::spawn(probe(number, store.clone(), Arc::clone(scene)));
    let mut working = JoinSet::new();
    for worker in workers.drain(..) {
        working.spawn(worker.work(phase.clone()));
    }
    let work = async {
        while let Some(worker) = working.join_next().await {
            match worker {
                Ok(worker) => workers.push(worker),
                Err(failed) => panic::resume_unwind(failed.into_panic()),
            }
        }
        let over = phase.wait_for(|&now| now >= (part, Phase::Over));
        drop(over.await.expect("a scene"));
    };
    // The prober ends by itself only when the store does not recover.
    tokio::select! {
        () = work => prober.abort(),
        Err(failed) = &mut prober => panic::resume_unwind(failed.into_panic()),
    }
    // It is gone then, with all that it had.
    let _ = prober.await;
}

/// Shows that all is well, whenever the scene asks.
async fn probe<S: SessionStore>(number: usize, store: S, scene: Arc<Scene>) {
    let mut asked = scene.probe.subscribe();
    let mut token = (u128::from(scene.seed) << 8) + number as u128;
    loop {
        let count = *asked.borrow_and_update();
        let begun = Instant::now();
        while let Err(error) = all_is_well(number, &store, &mut token).await {
            if begun.elapsed() > RECOVERY {
                scene.wrong(&format!("service {number} does not recover: {error}"), "");
            }
            sleep(Duration::from_millis(20)).await;
        }
        scene.fine[number].fetch_max(count, Ordering::Relaxed);
        if asked.changed().await.is_err() {
            return;
        }
    }
}

/// Logs users in and out.
async fn all_is_well(
    number: usize,
    store: &impl SessionStore,
    token: &mut u128,
) -> Result<(), String> {
    let told = |error: tower_bearer_session::Error| format!("{error:?}");
    store.ping().await.map_err(told)?;
    for user in 0..PROBED {
        *token += 1 << 80;
        let (user, id) = (format!("service {number}, probe {user}"), token_id(*token));
        let login = store.create(&user, &id, &session(HOUR), None).await;
        login.map_err(told)?;
        let checked = store.check(&user, &id).await.map_err(told)?;
        store.delete(&user, &id).await.map_err(told)?;
        if checked.is_none() {
            return Err("a session is gone".to_owned());
        }
    }
    Ok(())
}

/// Tells the scene of a panic.
struct FailedUnlessDone<'a>(&'a Scene);

impl FailedUnlessDone<'_> {
    fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for FailedUnlessDone<'_> {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
    }
}

/// The end of all phases, also when the test fails.
pub(crate) struct EndOfAll(pub(crate) Arc<Scene>);

impl Drop for EndOfAll {
    fn drop(&mut self) {
        self.0.phase.send_replace((u8::MAX, Phase::Over));
    }
}
