use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::advance;
use tower_bearer_session::{
    MemoryStore, SessionStore, TokenManager,
    store::{Operation, PutMode},
    test_util::Faults,
};

use super::{asking, asking_manager, built, cache_misses::CacheMisses, log_in};

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// Checks that share a load cache the user for the shortest time that one of them asked for, whoever came first.
#[tokio::test(start_paused = true)]
async fn a_shared_load_is_cached_for_the_shortest_time_asked_for() {
    for ttls in [[HOUR, MINUTE], [MINUTE, HOUR]] {
        let (manager, mut questions, token) = asking_manager(&MemoryStore::new()).await;
        let [mut first, mut second] =
            ttls.map(|ttl| Box::pin(manager.check_token_or_update_user(&token, ttl)));
        assert!(polled(first.as_mut()).is_pending() && polled(second.as_mut()).is_pending());
        questions.next().await.detail("loaded");
        assert!(first.await.unwrap().is_some() && second.await.unwrap().is_some());
        questions.assert_none();

        advance(MINUTE - Duration::from_secs(1)).await;
        let hit = manager.check_token_or_update_user(&token, None).await;
        assert_eq!(hit.unwrap().unwrap().detail().unwrap(), "loaded");
        questions.assert_none();
        advance(Duration::from_secs(1)).await;
        let mut later = pin!(manager.check_token_or_update_user(&token, None));
        assert!(polled(later.as_mut()).is_pending(), "{ttls:?}");
        questions.next().await.detail("newer");
        assert_eq!(later.await.unwrap().unwrap().detail().unwrap(), "newer");
    }
}

/// The same for a load that gives way to another one, which has found out before that both are for the same.
#[tokio::test(start_paused = true)]
async fn a_load_that_gives_way_hands_its_time_over() {
    let store = MemoryStore::new();
    let (misses, missing) = CacheMisses::of(store.clone());
    let (loader, mut questions) = asking();
    let manager: TokenManager<String> = built(TokenManager::builder(misses).load_user(loader));
    let token = log_in(&manager, "al").await;
    // A marker, as another process leaves it.
    let marked = store.put_user("al", b"!", HOUR, PutMode::Replace).await;
    assert!(marked.unwrap());
    missing.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut saw_it = pin!(manager.check_token_or_update_user(&token, HOUR));
    assert!(polled(saw_it.as_mut()).is_pending());
    let question = questions.next().await;
    missing.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut saw_nothing = pin!(manager.check_token_or_update_user(&token, MINUTE));
    assert!(polled(saw_nothing.as_mut()).is_pending());
    // It learns of the marker, and waits for the other one.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    questions.assert_none();
    question.detail("loaded");
    assert!(saw_it.await.unwrap().is_some() && saw_nothing.await.unwrap().is_some());
    advance(MINUTE).await;
    assert_eq!(store.get_user("al").await.unwrap(), None);
}

/// The same for a check that comes while the store already writes the user for a longer time.
#[tokio::test(start_paused = true)]
async fn a_check_that_joins_during_the_write_shortens_the_time() {
    for written in [false, true] {
        let (store, faults) = (MemoryStore::new(), Faults::new());
        let (loader, mut questions) = asking();
        let builder = TokenManager::builder(faults.wrap(store.clone())).load_user(loader);
        let manager: TokenManager<String> = built(builder);
        let token = log_in(&manager, "al").await;
        let mut first = pin!(manager.check_token_or_update_user(&token, HOUR));
        let mut second = pin!(manager.check_token_or_update_user(&token, MINUTE));
        assert!(polled(first.as_mut()).is_pending());
        let question = questions.next().await;
        let puts = faults.on(Operation::PutUser);
        let marked = puts.calls();
        match written {
            false => puts.delay(MINUTE / 2),
            true => puts.delay_replies(MINUTE / 2),
        }
        // It sees that the user is not cached, and joins the load in the middle of the write.
        faults.on(Operation::Check).delay_replies(MINUTE / 4);
        assert!(polled(second.as_mut()).is_pending());
        question.detail("loaded");
        while puts.calls() == marked {
            tokio::task::yield_now().await;
        }
        let (first, second) = tokio::join!(first, second);
        assert!(first.unwrap().is_some() && second.unwrap().is_some());
        questions.assert_none();
        assert!(store.get_user("al").await.unwrap().is_some());
        advance(MINUTE).await;
        assert_eq!(store.get_user("al").await.unwrap(), None, "{written}");
    }
}

/// A check that missed the cache, and learns of a load when that has just ended, gets its user without another load.
#[tokio::test(start_paused = true)]
async fn a_load_that_ends_while_another_one_begins_is_not_repeated() {
    let (store, faults) = (MemoryStore::new(), Faults::new());
    let (misses, missing) = CacheMisses::of(store.clone());
    let (loader, mut questions) = asking();
    let builder = TokenManager::builder(faults.wrap(misses)).load_user(loader);
    let manager: TokenManager<String> = built(builder);
    let token = log_in(&manager, "al").await;
    // A marker, as another process leaves it.
    let marked = store.put_user("al", b"!", HOUR, PutMode::Replace).await;
    assert!(marked.unwrap());
    missing.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut first = pin!(manager.check_token_or_update_user(&token, None));
    assert!(polled(first.as_mut()).is_pending());
    let question = questions.next().await;
    missing.store(true, std::sync::atomic::Ordering::SeqCst);
    let gets = faults.on(Operation::GetUser);
    let before = gets.calls();
    gets.delay_replies(MINUTE);
    let mut second = pin!(manager.check_token_or_update_user(&token, None));
    assert!(polled(second.as_mut()).is_pending());
    // The marker is read, and the answer is on its way.
    while gets.calls() == before {
        tokio::task::yield_now().await;
    }
    question.detail("loaded");
    assert!(first.await.unwrap().is_some());
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.detail().unwrap(), "loaded");
    questions.assert_none();
}

fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
