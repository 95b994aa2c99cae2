//! Checks that run at the same time, which share pipelines.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, mpsc},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_bearer_session::{ErrorKind, RedisStore, SessionStore, store::PutMode};

use crate::stores::{HOUR, Server, at_once, commands_of, live, log_in, on_every_server, token_id};

on_every_server!(
    checks_at_the_same_time_share_the_time,
    each_check_gets_its_own_answer,
    an_error_is_of_the_check_that_met_it,
    checks_that_are_given_up_harm_no_others,
    a_blocked_thread_holds_up_nobody_else,
    a_frozen_server_lets_all_checks_fail,
);

/// Far more than share a pipeline.
const MANY: usize = 1000;
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

/// `HGET` and `GET` once for each check, `TIME` once for many.
async fn checks_at_the_same_time_share_the_time(backend: &impl Server) {
    const TASKS: usize = 64;
    const CHECKS: u64 = 50;
    let store = Arc::new(backend.store().await);
    log_in(&*store, "al", &token_id(1)).await;
    let (commands, _) = commands_of(backend.server(), async {
        at_once(TASKS, |_| {
            let store = Arc::clone(&store);
            async move {
                for _ in 0..CHECKS {
                    live(&*store, "al", &token_id(1)).await;
                }
            }
        })
        .await
    })
    .await;
    let checks = TASKS as u64 * CHECKS;
    assert_eq!([commands["hget"], commands["get"]], [checks; 2]);
    assert_eq!(commands.len(), 3, "{commands:?}");
    assert!(commands["time"] < checks / 2, "{commands:?}");
}

/// Live, dead and unknown sessions of a thousand users, with and without a cached value.
async fn each_check_gets_its_own_answer(backend: &impl Server) {
    let store = Arc::new(backend.store().await);
    for n in 0..MANY {
        let user_id = format!("user {n}");
        if n % 3 != 0 {
            log_in(&*store, &user_id, &token_id(n as u128)).await;
        }
        if n % 2 == 0 {
            let put = store.put_user(&user_id, user_id.as_bytes(), HOUR, PutMode::Replace);
            assert!(put.await.unwrap());
        }
    }
    for _ in 0..5 {
        let answers = at_once(MANY, |n| {
            let store = Arc::clone(&store);
            async move {
                let (user_id, id) = (format!("user {n}"), token_id(n as u128));
                (n, store.check(&user_id, &id).await)
            }
        });
        for (n, answer) in answers.await {
            let answer = answer.unwrap();
            assert_eq!(answer.is_some(), n % 3 != 0, "{n}");
            if let Some(checked) = answer {
                let user = (n % 2 == 0).then(|| format!("user {n}"));
                assert_eq!(checked.user.as_deref(), user.as_deref().map(str::as_bytes));
            }
        }
    }
}

/// Somebody else's value at the keys of one user in ten.
async fn an_error_is_of_the_check_that_met_it(backend: &impl Server) {
    let store = Arc::new(backend.store().await);
    for n in 0..100 {
        if n % 10 == 0 {
            let prefix = ["tbs:tokens", "tbs:users"][n / 10 % 2];
            let key = format!("{prefix}:{{user {n}}}");
            let command = ["SADD", &key, "no session"];
            backend.server().cmd(&command).await;
        } else {
            log_in(&*store, &format!("user {n}"), &token_id(1)).await;
        }
    }
    let answers = at_once(100, |n| {
        let store = Arc::clone(&store);
        async move { (n, store.check(&format!("user {n}"), &token_id(1)).await) }
    });
    for (n, answer) in answers.await {
        match answer {
            Ok(checked) => assert!(checked.is_some() && n % 10 != 0, "{n}"),
            Err(error) => {
                assert_eq!((error.kind(), n % 10), (ErrorKind::Store, 0), "{error:?}");
            }
        }
    }
}

/// Three checks in four are dropped before they are answered, among them the first one.
async fn checks_that_are_given_up_harm_no_others(backend: &impl Server) {
    let store = Arc::new(backend.store().await);
    log_in(&*store, "al", &token_id(1)).await;
    for round in 0..50 {
        let mut checks = JoinSet::new();
        let handles: Vec<_> = (0..100).map(|_| checks.spawn(is_al(&store))).collect();
        if round % 2 == 0 {
            // So that some of them are on their way.
            tokio::task::yield_now().await;
        }
        for (n, handle) in handles.iter().enumerate() {
            if n % 4 != 3 {
                handle.abort();
            }
        }
        let mut answered = 0;
        while let Some(answer) = checks.join_next().await {
            answered += usize::from(answer.is_ok_and(|live| live));
        }
        assert!(answered >= 25, "only {answered} of 25 were answered");
    }
}

/// A task that began to share a pipeline, and then does not let go of its thread.
async fn a_blocked_thread_holds_up_nobody_else(backend: &impl Server) {
    let store = Arc::new(backend.store().await);
    log_in(&*store, "al", &token_id(1)).await;
    backend.server().freeze();
    let first = tokio::spawn(is_al(&store));
    // Until it is under way.
    sleep(Duration::from_millis(50)).await;
    let (begun, wait_for_begun) = oneshot::channel();
    let (done, wait_for_done) = mpsc::channel();
    let second = is_al(&store);
    let blocked = tokio::spawn(async move {
        let mut second = pin!(second);
        let polled = poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        begun.send(()).unwrap();
        wait_for_done.recv_timeout(LONG_TIMEOUT).is_ok() && second.await
    });
    wait_for_begun.await.unwrap();
    backend.server().thaw();
    sleep(Duration::from_millis(5)).await;
    let third = tokio::spawn(is_al(&store)).await;
    done.send(()).expect("the other one waits for this one");
    assert!(third.unwrap() && blocked.await.unwrap() && first.await.unwrap());
}

/// All at once, none later than its deadline; and when it goes on, so do checks.
async fn a_frozen_server_lets_all_checks_fail(backend: &impl Server) {
    let builder = RedisStore::builder(backend.server().url());
    let store = builder.deadline(Duration::from_millis(300)).connect().await;
    let store = Arc::new(store.unwrap());
    log_in(&backend.store().await, "al", &token_id(1)).await;
    backend.server().freeze();
    let answers = at_once(MANY, |_| {
        let store = Arc::clone(&store);
        async move { store.check("al", &token_id(1)).await }
    });
    let answers = timeout(LONG_TIMEOUT, answers).await;
    for answer in answers.expect("answers in time") {
        let kind = answer.expect_err("a frozen server").kind();
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable));
    }
    backend.server().thaw();
    let recovery = async {
        while store.check("al", &token_id(1)).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG_TIMEOUT, recovery).await.expect("a recovery");
}

fn is_al(store: &Arc<RedisStore>) -> impl Future<Output = bool> + Send + use<> {
    let store = Arc::clone(store);
    async move { store.check("al", &token_id(1)).await.unwrap().is_some() }
}
