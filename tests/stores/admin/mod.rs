//! Administration: listing the users who have sessions, and ending all sessions of all users.
//!
//! What a listing contains is in `conformance::…::users`.

mod calls;
mod failover;
mod keys;
mod resharding;
mod rows;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::JoinSet;
use tower_bearer_session::{
    ErrorKind, Event, EventKind, SessionStore, Token, TokenManager,
    store::{PutMode, UserCursor},
};

use crate::stores::{Backend, HOUR, listed_users, on_every_store};

on_every_store!(
    all_sessions_of_all_users_end,
    no_session_from_before_the_call_outlives_it,
    sessions_of_others_in_the_same_server_live_on,
    a_cursor_of_no_store_is_invalid_input,
);

/// Sessions by user, as the events told.
type Ended = Arc<Mutex<BTreeMap<String, u64>>>;

async fn is_live(manager: &TokenManager, token: &Token) -> bool {
    let user = manager.check_token(token.expose_secret()).await.unwrap();
    user.is_some()
}

/// The sessions of hundreds of users end, and each user is reported. Cached users stay, and later logins work.
async fn all_sessions_of_all_users_end(backend: &impl Backend) {
    let ended = Ended::default();
    let told = Arc::clone(&ended);
    let manager: TokenManager = backend
        .manager_builder()
        .await
        .on_event(move |event: &Event<'_>| {
            if let EventKind::LoggedOutAll {
                user_id,
                kept: None,
                sessions,
                ..
            } = event.kind()
            {
                let mut ended = told.lock().unwrap_or_else(PoisonError::into_inner);
                *ended.entry((*user_id).to_owned()).or_default() += sessions;
            }
        })
        .build()
        .unwrap();
    let store = backend.store().await;
    let (mut tokens, mut expected) = (Vec::new(), BTreeMap::new());
    for n in 0..300 {
        let user_id = format!("user {n} {{%}}");
        let sessions = 1 + n % 4;
        for _ in 0..sessions {
            tokens.push(manager.set_token(&user_id, None).await.unwrap());
        }
        expected.insert(user_id, sessions);
    }
    for user_id in ["user 7 {%}", "only cached"] {
        let put = store.put_user(user_id, b"\"detail\"", HOUR, PutMode::Replace);
        put.await.unwrap();
    }
    let sessions = tokens.len() as u64;
    assert_eq!(manager.delete_all_tokens().await.unwrap(), sessions);
    assert_eq!(*ended.lock().unwrap(), expected);
    let other = backend.manager().await;
    for token in &tokens {
        assert!(!is_live(&other, token).await);
    }
    assert!(listed_users(&store).await.is_empty());
    for user_id in ["user 7 {%}", "only cached"] {
        assert!(store.get_user(user_id).await.unwrap().is_some());
    }
    let token = other.set_token("user 7 {%}", None).await.unwrap();
    assert!(is_live(&manager, &token).await);
    assert_eq!(manager.delete_all_tokens().await.unwrap(), 1);
    assert_eq!(manager.delete_all_tokens().await.unwrap(), 0);
    assert!(!is_live(&other, &token).await);
}

/// However many users log in and out meanwhile, what began before the call has ended when it returns.
async fn no_session_from_before_the_call_outlives_it(backend: &impl Backend) {
    let manager = backend.manager().await;
    for _ in 0..3 {
        let (begun, stop) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut logins = JoinSet::new();
        for task in 0..4 {
            let (begun, stop) = (Arc::clone(&begun), Arc::clone(&stop));
            let manager = backend.manager().await;
            logins.spawn(async move {
                let (mut before, mut during) = (Vec::new(), Vec::new());
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // Some have sessions already, and others leave.
                    let user_id = format!("user {task} {}", n % 150);
                    let token = manager.set_token(&user_id, None).await.unwrap();
                    if n % 5 == 4 {
                        manager.delete_user_tokens(&user_id).await.unwrap();
                    }
                    match begun.load(Ordering::SeqCst) {
                        false => before.push(token),
                        true => during.push(token),
                    }
                }
                (before, during)
            });
        }
        while listed_users(&backend.store().await).await.len() < 100 {
            tokio::task::yield_now().await;
        }
        begun.store(true, Ordering::SeqCst);
        assert!(manager.delete_all_tokens().await.unwrap() > 0);
        stop.store(true, Ordering::SeqCst);
        let mut meanwhile = 0;
        for (before, during) in logins.join_all().await {
            assert!(!before.is_empty());
            for token in &before {
                assert!(!is_live(&manager, token).await, "{}", token.id());
            }
            meanwhile += during.len();
        }
        println!("{meanwhile} logins during the call");
        // Those that began during the call end with the next one.
        manager.delete_all_tokens().await.unwrap();
        assert!(listed_users(&backend.store().await).await.is_empty());
    }
}

/// Services with another prefix keep their sessions.
async fn sessions_of_others_in_the_same_server_live_on<B: Backend>(backend: &B) {
    let others = B::start().await;
    let (manager, other) = (backend.manager().await, others.manager().await);
    let ended = manager.set_token("al", None).await.unwrap();
    let stays = other.set_token("al", None).await.unwrap();
    assert_eq!(manager.delete_all_tokens().await.unwrap(), 1);
    assert!(!is_live(&manager, &ended).await);
    assert!(is_live(&other, &stays).await);
}

/// A text that no store has made is the fault of the caller.
async fn a_cursor_of_no_store_is_invalid_input(backend: &impl Backend) {
    let manager = backend.manager().await;
    for text in ["", "no cursor: é", "\0", "1.2.3"] {
        let page = manager.list_users(Some(&UserCursor::new(text))).await;
        let error = page.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
    }
}
