//! Defects 9 to 11.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use serde_json::json;
use tokio::sync::Notify;
use tower_bearer_session::ErrorKind;

use super::{counting_manager, log_in};
use crate::stores::{Backend, at_once, on_every_store};

on_every_store!(
    cold_checks_load_once_and_none_fails,
    a_missing_user_is_not_made_up,
    a_detail_is_the_same_on_a_miss_and_on_a_hit,
    a_user_that_fails_does_not_stop_the_others,
    a_slow_load_does_not_overwrite_newer_data,
);

/// Defect 9: 100 checks of a user that was not cached made 21 loader calls, and 79 failed: "pool
/// exhausted".
async fn cold_checks_load_once_and_none_fails(backend: &impl Backend) {
    let (manager, loads) = counting_manager(backend, |builder| builder).await;
    let mut tokens = vec![log_in(&manager, "al").await; 100];
    for n in 0..100 {
        tokens.push(log_in(&manager, &format!("user {n}")).await);
    }
    let checked = at_once(200, |task| {
        let (manager, token) = (manager.clone(), tokens[task].clone());
        async move { manager.check_token_or_update_user(&token, None).await }
    });
    for user in checked.await {
        let user = user.unwrap().unwrap();
        assert_eq!(user.detail().unwrap(), user.id());
    }
    assert_eq!(loads.load(SeqCst), 1 + 100);
}

/// Defect 10: a loader that found nobody made a user up.
async fn a_missing_user_is_not_made_up(backend: &impl Backend) {
    let builder = backend.manager_builder().await;
    let nobody = builder.load_user(async |_| Ok::<_, Infallible>(None::<String>));
    let manager = nobody.build().unwrap();
    let token = log_in(&manager, "al").await;
    for _ in 0..3 {
        let user = manager
            .check_token_or_update_user(&token, None)
            .await
            .unwrap();
        assert!(user.is_none());
    }
    assert!(manager.add_user("al", None).await.unwrap().is_none());
    assert!(
        manager
            .check_token_or_update_user(&token, None)
            .await
            .unwrap()
            .is_none()
    );
    let refreshed = manager.refresh_users(["al"], None).await;
    assert_eq!(
        (refreshed.missing.as_slice(), refreshed.refreshed.len()),
        (&["al".to_owned()][..], 0)
    );
}

/// Defect 10, its other half: `Detail` had another type when it came from the cache.
async fn a_detail_is_the_same_on_a_miss_and_on_a_hit(backend: &impl Backend) {
    let detail =
        json!({"id": 9_007_199_254_740_993_u64, "rate": 1.0, "tags": ["a", null], "at": {}});
    let (loaded, loads) = (detail.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&loads);
    let builder = backend.manager_builder().await;
    let manager = builder.load_user(move |_| {
        counted.fetch_add(1, SeqCst);
        let detail = loaded.clone();
        async move { Ok::<_, Infallible>(Some(detail)) }
    });
    let manager = manager.build().unwrap();
    let token = log_in(&manager, "al").await;
    for _ in 0..3 {
        let user = manager
            .check_token_or_update_user(&token, None)
            .await
            .unwrap();
        assert_eq!(user.unwrap().detail(), Some(&detail));
    }
    assert_eq!(loads.load(SeqCst), 1);
}

/// Defect 11: `RefreshUser` stopped at the first error.
async fn a_user_that_fails_does_not_stop_the_others(backend: &impl Backend) {
    let builder = backend.manager_builder().await;
    let manager = builder.load_user(async |id: String| match &*id {
        "broken" => Err(io::Error::other("the database is on fire")),
        "gone" => Ok(None),
        _ => Ok(Some(id)),
    });
    let manager = manager.build().unwrap();
    let outcome = manager
        .refresh_users(["broken", "al", "gone", "", "bo"], None)
        .await;
    let mut refreshed = outcome.refreshed;
    refreshed.sort();
    assert_eq!(refreshed, ["al", "bo"]);
    assert_eq!(outcome.missing, ["gone"]);
    let mut failed = outcome.failed;
    failed.sort_by(|(one, _), (other, _)| one.cmp(other));
    let failed: Vec<_> = failed
        .iter()
        .map(|(id, error)| (&**id, error.kind()))
        .collect();
    assert_eq!(
        failed,
        [
            ("", ErrorKind::InvalidInput),
            ("broken", ErrorKind::LoadUser)
        ]
    );
}

/// Defect 11, its other half: a slow load overwrote what was loaded after it began.
async fn a_slow_load_does_not_overwrite_newer_data(backend: &impl Backend) {
    let (loading, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, wait) = (Arc::clone(&loading), Arc::clone(&finish));
    let slow = backend.manager_builder().await.load_user(move |_| {
        let (began, wait) = (Arc::clone(&began), Arc::clone(&wait));
        async move {
            began.notify_one();
            wait.notified().await;
            Ok::<_, Infallible>(Some("old".to_owned()))
        }
    });
    let slow = slow.build().unwrap();
    let builder = backend.manager_builder().await;
    let quick = builder.load_user(async |_| Ok::<_, Infallible>(Some("new".to_owned())));
    let quick = quick.build().unwrap();

    let token = log_in(&slow, "al").await;
    let check = {
        let (slow, token) = (slow.clone(), token.clone());
        tokio::spawn(async move { slow.check_token_or_update_user(&token, None).await })
    };
    loading.notified().await;
    quick.add_user("al", None).await.unwrap();
    finish.notify_one();
    check.await.unwrap().unwrap();
    for manager in [&slow, &quick] {
        let user = manager
            .check_token_or_update_user(&token, None)
            .await
            .unwrap();
        assert_eq!(user.unwrap().detail().unwrap(), "new");
    }
}
