//! A run: faults, one after the other, with pauses in which all is well.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Handle},
    time::sleep,
};

use crate::{
    deployment::Deployment,
    growth::{Usage, resident},
    random::{Random, length, seed},
    scene::{Phase, Scene},
    service::{EndOfAll, Service},
};

/// Runs measure their process, so there is one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What part of the run it takes until the services have all the buffers, connections and entries that they need.
const WARM_UP: u32 = 3;

/// Two services, and what fails.
struct Run<D: Deployment> {
    deployment: D,
    scene: Arc<Scene>,
    random: Random,
    services: Vec<Handle>,
    faults: BTreeMap<&'static str, u32>,
}

/// Runs a deployment for a while.
pub(crate) fn soak<D: Deployment>() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (seed, length) = (seed(), length());
    println!("{}: SOAK_SEED={seed}", D::NAME);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let deployment = runtime.block_on(D::start());
    let scene = Arc::new(Scene::new(D::NAME, seed, D::MAY_LOSE));
    let end = EndOfAll(Arc::clone(&scene));
    let services = [0, 1].map(|n| Service::start::<D>(n, deployment.url(n), &scene));
    let all = services.each_ref().map(|service| service.store.clone());
    let mut run = Run {
        deployment,
        scene: Arc::clone(&scene),
        random: Random::new(seed),
        services: services.each_ref().map(|it| it.handle.clone()).into(),
        faults: BTreeMap::new(),
    };
    let threads = services.map(|service| {
        service.stores.send(all.to_vec()).expect("a service");
        service.thread
    });
    drop(all);
    let ran = runtime.block_on(async {
        let before = run.part(0, length / WARM_UP, None).await?;
        let rest = length - length / WARM_UP;
        let after = run.part(1, rest, Some(before)).await?;
        Some((before, after))
    });
    drop(end);
    let mut heap = [0; 2];
    for thread in threads {
        match thread.join() {
            Ok(grown) => {
                heap[0] += grown[0];
                heap[1] += grown[1];
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let (before, after) = ran.expect("two services that have not failed");
    let tally = &scene.tally;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{}: seed {seed}, {} s, {} operations, {} failed, {} undone by failovers, faults {:?}, \
         descriptors {} -> {}, tasks {} -> {}, heap {} -> {} KiB, resident {} MiB, slowest {} ms",
        D::NAME,
        length.as_secs(),
        count(&tally.operations),
        count(&tally.failed),
        count(&tally.undone),
        run.faults,
        before.descriptors,
        after.descriptors,
        before.tasks,
        after.tasks,
        heap[0] / 1024,
        (heap[0] + heap[1]) / 1024,
        resident() / (1024 * 1024),
        count(&tally.slowest) / 1000,
    );
    assert!(
        !after.exceeds(before, D::SPARE),
        "{before:?} before, {after:?} after"
    );
    assert!(
        heap[1] <= D::SPARE.bytes,
        "{} bytes more are alive",
        heap[1]
    );
}

impl<D: Deployment> Run<D> {
    /// Lets things fail for a while; tells what there is when all is well again, or `None` if a service failed.
    async fn part(&mut self, part: u8, length: Duration, before: Option<Usage>) -> Option<Usage> {
        self.scene.phase.send_replace((part, Phase::Work));
        let start = Instant::now();
        self.is_well().await?;
        loop {
            self.round().await?;
            if start.elapsed() >= length {
                break;
            }
        }
        self.scene.phase.send_replace((part, Phase::Idle));
        let mut usage = self.usage().await?;
        // Something may still be ending.
        for _ in 0..3 {
            if before.is_some_and(|before| usage.exceeds(before, D::SPARE)) {
                usage = self.usage().await?;
            }
        }
        self.scene.phase.send_replace((part, Phase::Over));
        Some(usage)
    }

    /// One fault, and a pause.
    async fn round(&mut self) -> Option<()> {
        let (began, primaries) = (Instant::now(), self.deployment.primaries().await);
        let fault = *self.random.pick(D::FAULTS);
        self.scene.fault(fault.to_owned());
        self.deployment.fail(fault, &mut self.random).await;
        self.scene.fault(format!("  end of {fault}"));
        let mended = Instant::now();
        if D::loses(fault) {
            self.scene.losses.add(began, mended);
        }
        *self.faults.entry(fault).or_default() += 1;
        self.is_well().await?;
        sleep(self.random.millis(300, 2000)).await;
        // One that nobody has ordered.
        if self.deployment.primaries().await != primaries && !D::loses(fault) {
            self.scene.losses.add(began, Instant::now());
            *self.faults.entry("other failover").or_default() += 1;
        }
        self.scene.losses.all_until_now();
        self.still_running()
    }

    /// Waits until both services have shown that all is well; each of them panics if it takes too long.
    async fn is_well(&self) -> Option<()> {
        let mut asked = 0;
        self.scene.probe.send_modify(|count| {
            *count += 1;
            asked = *count;
        });
        while self
            .scene
            .fine
            .iter()
            .any(|fine| fine.load(Ordering::Relaxed) < asked)
        {
            self.still_running()?;
            sleep(Duration::from_millis(10)).await;
        }
        Some(())
    }

    /// What there is when nothing happens.
    async fn usage(&self) -> Option<Usage> {
        let ask = async || {
            let _ = self.is_well().await;
        };
        let usage = Usage::least(&self.services, D::CALM, ask).await;
        self.still_running()?;
        Some(usage)
    }

    fn still_running(&self) -> Option<()> {
        (!self.scene.failed.load(Ordering::Relaxed)).then_some(())
    }
}
