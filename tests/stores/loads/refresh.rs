use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;
use tower_bearer_session::ErrorKind;

use super::{Answer, asking_manager, cached, log_in};
use crate::stores::{Backend, HOUR, on_every_store};

on_every_store!(
    every_user_is_tried_and_the_failures_are_named,
    at_most_eight_are_loaded_at_a_time,
    refreshed_users_are_in_the_cache,
    what_cannot_be_done_is_said_of_each,
);

/// One failure, panic or unknown user does not stop the others: each id is in the result, once.
async fn every_user_is_tried_and_the_failures_are_named(backend: &impl Backend) {
    let (manager, mut questions, _) = asking_manager(backend).await;
    let ids: Vec<_> = (0..30).map(|number| format!("u{number}")).collect();
    let refreshing = {
        let (manager, ids) = (manager.clone(), ids.clone());
        tokio::spawn(async move { manager.refresh_users(ids, HOUR).await })
    };
    let number = |id: &str| id[1..].parse::<u32>().unwrap();
    for _ in &ids {
        let question = questions.next().await;
        let answer = match number(&question.user_id) {
            13 => Answer::Panic,
            number if number % 5 == 0 => Answer::Failure("the database is down"),
            number if number % 7 == 0 => Answer::NoSuchUser,
            number => Answer::Detail(format!("detail {number}")),
        };
        question.answer(answer);
    }
    let mut result = refreshing.await.unwrap();
    questions.assert_none();
    let expected = |holds: &dyn Fn(u32) -> bool| -> Vec<String> {
        let mut ids = ids.clone();
        ids.retain(|id| holds(number(id)));
        ids.sort();
        ids
    };
    let failed: BTreeMap<_, _> = result.failed.into_iter().collect();
    let failed_ids: Vec<_> = failed.keys().cloned().collect();
    let is_missing = |n| n % 7 == 0 && n % 5 != 0;
    let is_failed = |n| n % 5 == 0 || n == 13;
    assert_eq!(failed_ids, expected(&is_failed));
    for (id, error) in &failed {
        assert_eq!(error.kind(), ErrorKind::LoadUser);
        let reason = if id == "u13" { "panic" } else { "down" };
        assert!(format!("{error:?}").contains(reason), "{error:?}");
    }
    result.missing.sort();
    assert_eq!(result.missing, expected(&is_missing));
    result.refreshed.sort();
    let is_refreshed = |n| !is_missing(n) && !is_failed(n);
    assert_eq!(result.refreshed, expected(&is_refreshed));
}

/// A big refresh is gentle with the database.
async fn at_most_eight_are_loaded_at_a_time(backend: &impl Backend) {
    let (manager, mut questions, _) = asking_manager(backend).await;
    let ids: Vec<_> = (0..30).map(|number| format!("u{number}")).collect();
    let refreshing = {
        let manager = manager.clone();
        tokio::spawn(async move { manager.refresh_users(ids, None).await })
    };
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(questions.next().await);
    }
    for _ in 0..22 {
        // Time enough for one too many to show.
        sleep(Duration::from_millis(5)).await;
        questions.assert_none();
        open.remove(0).detail("loaded");
        open.push(questions.next().await);
    }
    for question in open {
        question.detail("loaded");
    }
    assert_eq!(refreshing.await.unwrap().refreshed.len(), 30);
    questions.assert_none();
}

/// What was refreshed is what checks find, at all services.
async fn refreshed_users_are_in_the_cache(backend: &impl Backend) {
    let (manager, mut questions, al) = asking_manager(backend).await;
    let bo = log_in(&manager, "bo").await;
    for detail in ["first", "second"] {
        let refreshing = {
            let manager = manager.clone();
            tokio::spawn(async move { manager.refresh_users(["al", "bo"], None).await })
        };
        for _ in 0..2 {
            let question = questions.next().await;
            let detail = format!("{} {detail}", question.user_id);
            question.detail(&detail);
        }
        assert_eq!(refreshing.await.unwrap().refreshed.len(), 2);
        assert_eq!(cached(&manager, &al).await, Some(format!("al {detail}")));
        assert_eq!(cached(&manager, &bo).await, Some(format!("bo {detail}")));
    }
    questions.assert_none();
}

/// Ids and durations that cannot be, and a manager without a loader, are failures of each id.
async fn what_cannot_be_done_is_said_of_each(backend: &impl Backend) {
    let (manager, mut questions, _) = asking_manager(backend).await;
    let too_long = "x".repeat(256);
    let ids = ["", &*too_long];
    let bad_ids = manager.refresh_users(ids, None).await;
    let bad_ttl = manager.refresh_users(["al", "bo"], Duration::ZERO).await;
    let no_loader = backend
        .manager_builder()
        .await
        .user_type::<String>()
        .build()
        .unwrap();
    let no_loader = no_loader.refresh_users(["al", "bo"], None).await;
    for (result, kind) in [
        (bad_ids, ErrorKind::InvalidInput),
        (bad_ttl, ErrorKind::InvalidInput),
        (no_loader, ErrorKind::NoLoader),
    ] {
        assert_eq!(result.failed.len(), 2);
        assert!(result.failed.iter().all(|(_, error)| error.kind() == kind));
        assert!(result.refreshed.is_empty() && result.missing.is_empty());
    }
    let nothing = manager.refresh_users([""; 0], None).await;
    assert!(nothing.failed.is_empty() && nothing.refreshed.is_empty());
    questions.assert_none();
}
