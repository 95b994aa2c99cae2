use tokio::task::JoinHandle;
use tower_bearer_session::{Error, MemoryStore, TokenManager};

use super::{
    asking, asking_manager, built, cache_misses::Remembers, cached, checking, detail, log_in,
    two_asking_managers,
};
use crate::stores::{Backend, Rechecked, SHORT, on_every_store, outlive_short};

on_every_store!(
    a_slow_load_does_not_overwrite_a_newer_add_user,
    a_slow_load_does_not_overwrite_an_add_user_elsewhere,
    the_last_of_two_add_users_wins,
    the_same_data_twice_is_not_taken_for_unchanged,
    a_newer_add_user_counts_after_it_expired,
    add_user_under_steady_writes_never_leaves_old_data,
    a_slow_load_does_not_outlast_delete_user,
    a_slow_load_does_not_outlast_the_next_delete_user,
    a_slow_add_user_does_not_outlast_delete_user,
    a_check_after_delete_user_does_not_share_an_older_load,
    a_logout_beats_a_slow_load,
    a_logout_everywhere_beats_a_slow_load,
);

/// What was loaded by `add_user` after a slow load began stays, when that load ends at last.
async fn a_slow_load_does_not_overwrite_a_newer_add_user(backend: &impl Backend) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let check = checking(&manager, &token);
    let slow = questions.next().await;
    let add = adding(&manager);
    questions.next().await.detail("new");
    assert_eq!(add.await.unwrap().unwrap().as_deref(), Some("new"));
    slow.detail("old");
    // Who asked before the change may be told what was so before the change.
    assert!(check.await.unwrap().unwrap().is_some());
    assert_eq!(cached(&manager, &token).await.as_deref(), Some("new"));
    questions.assert_none();
}

/// The same when the other is another service.
async fn a_slow_load_does_not_overwrite_an_add_user_elsewhere(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let check = checking(&here, &token);
    let slow = questions.next().await;
    let add = adding(&there);
    questions.next().await.detail("new");
    assert_eq!(add.await.unwrap().unwrap().as_deref(), Some("new"));
    slow.detail("old");
    assert!(check.await.unwrap().unwrap().is_some());
    for manager in [here, there] {
        assert_eq!(cached(&manager, &token).await.as_deref(), Some("new"));
    }
    questions.assert_none();
}

/// Of two `add_user` that overlap, the one that loaded first does not have the last word.
async fn the_last_of_two_add_users_wins(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let slow_add = adding(&here);
    let slow = questions.next().await;
    let add = adding(&there);
    questions.next().await.detail("new");
    assert_eq!(add.await.unwrap().unwrap().as_deref(), Some("new"));
    slow.detail("old");
    // It finds out, and loads anew.
    questions.next().await.detail("newest");
    let added = slow_add.await.unwrap().unwrap();
    assert_eq!(added.as_deref(), Some("newest"));
    assert_eq!(cached(&there, &token).await.as_deref(), Some("newest"));
    questions.assert_none();
}

/// A change and its reversal, both followed by `add_user`: the cached value reads the same as before, and the slow
/// load of the change must not be put over it.
async fn the_same_data_twice_is_not_taken_for_unchanged(backend: &impl Backend) {
    for plain in [Some("plain"), None] {
        let ([here, there], mut questions, token) = two_asking_managers(backend).await;
        let answer = |question: super::Question| match plain {
            Some(detail) => question.detail(detail),
            None => question.answer(super::Answer::NoSuchUser),
        };
        let add = adding(&here);
        answer(questions.next().await);
        assert_eq!(add.await.unwrap().unwrap().as_deref(), plain);

        let slow_add = adding(&here);
        let slow = questions.next().await;
        let add = adding(&there);
        answer(questions.next().await);
        assert_eq!(add.await.unwrap().unwrap().as_deref(), plain);
        slow.detail("admin");
        // It finds out, and loads anew.
        answer(questions.next().await);
        assert_eq!(slow_add.await.unwrap().unwrap().as_deref(), plain);
        assert_eq!(cached(&there, &token).await.as_deref(), plain);
        here.delete_user("al").await.unwrap();
    }
}

/// The absence of a value is no proof that nothing has happened since a load began.
async fn a_newer_add_user_counts_after_it_expired(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let check = checking(&here, &token);
    let slow = questions.next().await;
    let adding = tokio::spawn({
        let there = there.clone();
        async move { there.add_user("al", SHORT).await }
    });
    questions.next().await.detail("new");
    assert!(adding.await.unwrap().unwrap().is_some());
    outlive_short().await;
    // Who asks now is not told what was so before, and nor is anybody later.
    let late = checking(&here, &token);
    questions.next().await.detail("newer");
    assert_eq!(late.await.unwrap().unwrap().as_deref(), Some("newer"));
    slow.detail("old");
    assert!(check.await.unwrap().unwrap().is_some());
    assert_eq!(cached(&there, &token).await.as_deref(), Some("newer"));
}

/// However often others write meanwhile, `add_user` comes to an end, and its old data is not what stays.
async fn add_user_under_steady_writes_never_leaves_old_data(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let slow_add = adding(&here);
    let mut newest = String::new();
    for round in 0.. {
        if slow_add.is_finished() {
            break;
        }
        assert!(round < 100, "add_user goes on for ever");
        let Some(slow) = question_of(&mut questions, &slow_add).await else {
            break;
        };
        newest = format!("new {round}");
        let add = adding(&there);
        questions.next().await.detail(&newest);
        assert_eq!(add.await.unwrap().unwrap().as_deref(), Some(&*newest));
        slow.detail("old");
    }
    slow_add.await.unwrap().unwrap();
    for manager in [here, there] {
        assert_eq!(cached(&manager, &token).await, Some(newest.clone()));
    }
}

/// A load that began before `delete_user` does not put back what was deleted.
async fn a_slow_load_does_not_outlast_delete_user(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let check = checking(&here, &token);
    let slow = questions.next().await;
    there.delete_user("al").await.unwrap();
    slow.detail("old");
    assert!(check.await.unwrap().unwrap().is_some());
    for manager in [&here, &there] {
        let check = checking(manager, &token);
        // Only the first of the two has to ask.
        if std::ptr::eq(manager, &here) {
            questions.next().await.detail("new");
        }
        assert_eq!(check.await.unwrap().unwrap().as_deref(), Some("new"));
    }
    questions.assert_none();
}

/// Each `delete_user` counts: a load that began between two of them is old after the second.
async fn a_slow_load_does_not_outlast_the_next_delete_user(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    there.delete_user("al").await.unwrap();
    let check = checking(&here, &token);
    let slow = questions.next().await;
    there.delete_user("al").await.unwrap();
    slow.detail("old");
    assert!(check.await.unwrap().unwrap().is_some());
    let check = checking(&there, &token);
    questions.next().await.detail("new");
    assert_eq!(check.await.unwrap().unwrap().as_deref(), Some("new"));
    assert_eq!(cached(&here, &token).await.as_deref(), Some("new"));
}

/// Nor does a slow `add_user`.
async fn a_slow_add_user_does_not_outlast_delete_user(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let add = adding(&here);
    let slow = questions.next().await;
    there.delete_user("al").await.unwrap();
    slow.detail("old");
    questions.next().await.detail("new");
    assert_eq!(add.await.unwrap().unwrap().as_deref(), Some("new"));
    assert_eq!(cached(&there, &token).await.as_deref(), Some("new"));
}

/// Who checks after `delete_user` wants to know what is so after it.
async fn a_check_after_delete_user_does_not_share_an_older_load(backend: &impl Backend) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let before = checking(&manager, &token);
    let slow = questions.next().await;
    manager.delete_user("al").await.unwrap();
    let after = checking(&manager, &token);
    questions.next().await.detail("new");
    assert_eq!(after.await.unwrap().unwrap().as_deref(), Some("new"));
    slow.detail("old");
    assert!(before.await.unwrap().unwrap().is_some());
    assert_eq!(cached(&manager, &token).await.as_deref(), Some("new"));
    questions.assert_none();
}

/// Whose session ends while the user is being loaded is refused.
async fn a_logout_beats_a_slow_load(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let other = log_in(&here, "al").await;
    let checks = [checking(&here, &token), checking(&here, &other)];
    let slow = questions.next().await;
    assert!(there.delete_token(&token).await.unwrap());
    slow.detail("loaded");
    let [check, other] = checks;
    assert_eq!(check.await.unwrap().unwrap(), None);
    // Who shares the load, but is not logged out, is let in.
    assert_eq!(other.await.unwrap().unwrap().as_deref(), Some("loaded"));
}

/// Also where the process remembers that the session was live, and answers checks by that.
#[tokio::test]
async fn a_logout_beats_a_slow_load_of_a_process_that_remembers() {
    let store = MemoryStore::new();
    let checks = Remembers::default();
    let remembering = Rechecked {
        store: store.clone(),
        checks,
    };
    let (loader, mut questions) = asking();
    let here = built(TokenManager::builder(remembering).load_user(loader));
    let there: TokenManager = TokenManager::new(store);
    let token = log_in(&here, "al").await;
    let check = checking(&here, &token);
    let slow = questions.next().await;
    assert!(there.delete_token(&token).await.unwrap());
    slow.detail("loaded");
    assert_eq!(check.await.unwrap().unwrap(), None);
}

/// The same for all sessions of the user.
async fn a_logout_everywhere_beats_a_slow_load(backend: &impl Backend) {
    let ([here, there], mut questions, token) = two_asking_managers(backend).await;
    let checks = [checking(&here, &token), checking(&here, &token)];
    let slow = questions.next().await;
    assert_eq!(there.delete_user_tokens("al").await.unwrap(), 1);
    slow.detail("loaded");
    for check in checks {
        assert_eq!(check.await.unwrap().unwrap(), None);
    }
}

type Adding = JoinHandle<Result<Option<String>, Error>>;

/// `add_user` in a task of its own.
fn adding(manager: &TokenManager<String>) -> Adding {
    let manager = manager.clone();
    tokio::spawn(async move {
        let user = manager.add_user("al", None).await?;
        Ok(user.map(|user| detail(&user)))
    })
}

/// The next question, unless the task comes to its end without one.
async fn question_of(questions: &mut super::Questions, task: &Adding) -> Option<super::Question> {
    let ended = async {
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        question = questions.next() => Some(question),
        () = ended => None,
    }
}
