//! Replacing the tokens of sessions, and detecting the reuse of replaced ones, on every store.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_bearer_session::{
    ErrorKind, Event, EventKind, ReplaceOptions, Replacement, Token, TokenManager, TokenOptions,
    User, store::MAX_TTL,
};

use crate::stores::{Backend, DAY, HOUR, at_once, on_every_store};

mod handlers;

on_every_store!(
    a_session_stays_when_its_token_is_replaced,
    a_replaced_token_works_for_its_grace,
    a_replaced_token_is_neither_refreshed_nor_replaced,
    any_token_of_a_session_logs_out,
    a_reused_token_ends_the_session_whichever_way_it_is_presented,
    a_thief_and_the_owner_both_lose_the_session,
    a_forged_token_that_names_a_session_does_nothing,
    a_token_that_was_replaced_long_ago_is_unknown,
    the_others_end_in_the_same_step,
    one_of_many_replacements_gets_the_token,
    a_replacement_does_not_outlive_a_logout_of_all,
);

/// What was told to the hook of a manager.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, event: &Event<'_>) {
        let name = match event.kind() {
            EventKind::Replaced { .. } => "replaced",
            EventKind::Authenticated { .. } => "authenticated",
            EventKind::Reused { .. } => "reused",
            EventKind::Refused { reason, .. } => reason.as_str(),
            EventKind::LoggedOut { .. } => "logged out",
            EventKind::LoggedOutAll { .. } => "logged out all",
            _ => return,
        };
        self.0.lock().unwrap().push(name.to_owned());
    }

    /// What was told since the last time.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn logged(backend: &impl Backend) -> (TokenManager<String>, Log) {
    let (builder, log) = (backend.manager_builder().await, Log::default());
    let builder = builder.load_user(async |id| Ok::<_, Infallible>(Some(id)));
    let told = log.clone();
    let manager = builder.on_event(move |event| told.note(event)).build();
    (manager.unwrap(), log)
}

fn no_grace() -> ReplaceOptions {
    ReplaceOptions::new().grace(Duration::ZERO)
}

/// Replaces a token that is current.
async fn replaced(manager: &TokenManager<String>, token: &Token, options: ReplaceOptions) -> Token {
    let replacement = manager.replace_token(token.expose_secret(), options);
    match replacement.await.unwrap() {
        Replacement::Replaced { issued, .. } => issued.token,
        other => panic!("{other:?}"),
    }
}

async fn checked(manager: &TokenManager<String>, token: &Token) -> Option<User<String>> {
    manager.check_token(token.expose_secret()).await.unwrap()
}

async fn is_live(manager: &TokenManager<String>, token: &Token) -> bool {
    checked(manager, token).await.is_some()
}

/// Id, start, absolute end, metadata and expiry stay; only the token is another one.
async fn a_session_stays_when_its_token_is_replaced(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    let options = TokenOptions::new().ttl(HOUR).max_lifetime(DAY);
    let issued = manager.set_token_with("al", options.metadata("device", "phone"));
    let mut token = issued.await.unwrap().token;
    let session = *token.id();
    let mut before = manager.list_user_tokens("al").await.unwrap();
    for _ in 0..3 {
        let replacement = manager.replace_token(token.expose_secret(), ReplaceOptions::new());
        let Replacement::Replaced { issued, ended, .. } = replacement.await.unwrap() else {
            panic!("the token is live");
        };
        let new = issued.token;
        assert_eq!(issued.ends_at, before[0].ends_at());
        assert!(before[0].created_at() <= issued.issued_at && issued.issued_at < issued.expires_at);
        assert_ne!(new.expose_secret(), token.expose_secret());
        assert_eq!((*new.id(), ended), (session, 0));
        let user = checked(&manager, &new).await.unwrap();
        assert_eq!((user.id(), user.token_id()), ("al", Some(&session)));
        assert_eq!(user.token_expires_at(), Some(issued.expires_at));
        assert_eq!(manager.list_user_tokens("al").await.unwrap(), before);
        token = new;
    }
    assert_eq!(log.take(), ["replaced"; 3]);

    // Other metadata and another expiry, if asked for.
    let options = ReplaceOptions::new()
        .ttl(2 * HOUR)
        .metadata("device", "pad");
    token = replaced(&manager, &token, options.authenticated()).await;
    assert_eq!(log.take(), ["replaced", "authenticated"]);
    let after = manager.list_user_tokens("al").await.unwrap();
    assert_eq!(after[0].metadata()["device"], "pad");
    assert_eq!(after[0].expires_at(), after[0].refreshed_at() + 2 * HOUR);
    assert_eq!(after[0].authenticated_at(), after[0].refreshed_at());
    assert_eq!(after[0].created_at(), before[0].created_at());
    assert_eq!(after[0].ends_at(), before[0].ends_at());
    // A token in a list is named by the session.
    before = after;
    assert!(
        manager
            .delete_user_token("al", before[0].id())
            .await
            .unwrap()
    );
    assert!(!is_live(&manager, &token).await);
}

async fn a_replaced_token_works_for_its_grace(backend: &impl Backend) {
    let (manager, _) = logged(backend).await;
    let first = manager.set_token("al", DAY).await.unwrap();
    let second = replaced(&manager, &first, ReplaceOptions::new().grace(HOUR)).await;
    let third = replaced(&manager, &second, ReplaceOptions::new().grace(2 * HOUR)).await;
    for (token, left) in [(&first, HOUR), (&second, 2 * HOUR), (&third, DAY)] {
        let user = manager.check_token_or_update_user(token.expose_secret(), None);
        let user = user.await.unwrap().unwrap();
        assert_eq!(user.detail().unwrap(), "al");
        // It expires with its grace.
        let remaining = user.token_remaining().unwrap();
        assert!(left - HOUR / 2 < remaining && remaining <= left);
    }
    for bad in [MAX_TTL + Duration::from_millis(1), Duration::MAX] {
        let options = ReplaceOptions::new().grace(bad);
        let refused = manager.replace_token(third.expose_secret(), options).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(is_live(&manager, &third).await);
}

async fn a_replaced_token_is_neither_refreshed_nor_replaced(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    let first = manager.set_token("al", HOUR).await.unwrap();
    let second = replaced(&manager, &first, ReplaceOptions::new().grace(HOUR)).await;
    let before = manager.list_user_tokens("al").await.unwrap();
    log.take();
    for _ in 0..2 {
        assert!(
            !manager
                .refresh_token(first.expose_secret(), DAY)
                .await
                .unwrap()
        );
        let again = manager.replace_token(first.expose_secret(), no_grace());
        assert!(matches!(again.await.unwrap(), Replacement::AlreadyReplaced));
    }
    assert_eq!(log.take(), ["replaced"; 4]);
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), before);
    assert!(is_live(&manager, &first).await && is_live(&manager, &second).await);
    assert!(
        manager
            .refresh_token(second.expose_secret(), DAY)
            .await
            .unwrap()
    );
}

/// Also one in its grace: the user wants to be logged out.
async fn any_token_of_a_session_logs_out(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    for number in 0..3 {
        let first = manager.set_token("al", HOUR).await.unwrap();
        let options = ReplaceOptions::new().grace(HOUR);
        let second = replaced(&manager, &first, options.clone()).await;
        let third = replaced(&manager, &second, options).await;
        let tokens = [first, second, third];
        log.take();
        assert!(
            manager
                .delete_token(tokens[number].expose_secret())
                .await
                .unwrap()
        );
        assert_eq!(log.take(), ["logged out"]);
        for token in &tokens {
            assert!(!is_live(&manager, token).await, "token {number} logged out");
            assert!(!manager.delete_token(token.expose_secret()).await.unwrap());
        }
    }
}

/// By a check, a check that loads the user, a refresh, a replacement and a logout: with the first token of a session, and
/// with a later one.
async fn a_reused_token_ends_the_session_whichever_way_it_is_presented(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    for (way, is_first) in (0..5).flat_map(|way| [(way, true), (way, false)]) {
        let mut token = manager.set_token("al", HOUR).await.unwrap();
        if !is_first {
            token = replaced(&manager, &token, no_grace()).await;
        }
        let current = replaced(&manager, &token, no_grace()).await;
        log.take();
        let reused = token.expose_secret();
        match way {
            0 => assert!(manager.check_token(reused).await.unwrap().is_none()),
            1 => {
                let user = manager.check_token_or_update_user(reused, None).await;
                assert!(user.unwrap().is_none());
            }
            2 => assert!(!manager.refresh_token(reused, DAY).await.unwrap()),
            3 => {
                let again = manager.replace_token(reused, no_grace()).await;
                assert!(matches!(again.unwrap(), Replacement::Reused));
            }
            // Whoever logs out ends the session anyway.
            _ => assert!(manager.delete_token(reused).await.unwrap()),
        }
        let told = log.take();
        match (way, is_first) {
            (4, true) => assert_eq!(told, ["logged out"]),
            _ => assert_eq!(told, ["reused", "reused"], "way {way}"),
        }
        assert!(!is_live(&manager, &current).await, "way {way}, {is_first}");
        assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
        // It was reported, and is now a token like any that is not live.
        assert!(!is_live(&manager, &token).await);
        assert_eq!(log.take(), ["not_live", "not_live"]);
    }
}

async fn a_thief_and_the_owner_both_lose_the_session(backend: &impl Backend) {
    let (manager, _) = logged(backend).await;
    let stolen = manager.set_token("al", HOUR).await.unwrap();
    let elsewhere = manager.set_token("al", HOUR).await.unwrap();
    let thief = replaced(&manager, &stolen, no_grace()).await;
    let thief = replaced(&manager, &thief, no_grace()).await;
    let owner = manager.replace_token(stolen.expose_secret(), no_grace());
    assert!(matches!(owner.await.unwrap(), Replacement::Reused));
    assert!(!is_live(&manager, &thief).await);
    let thief = manager.replace_token(thief.expose_secret(), no_grace());
    assert!(matches!(thief.await.unwrap(), Replacement::NotLive));
    assert!(is_live(&manager, &elsewhere).await);
}

/// The id of a session is no secret: a token that names it proves nothing by that.
async fn a_forged_token_that_names_a_session_does_nothing(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    let first = manager.set_token("al", HOUR).await.unwrap();
    let never_replaced = manager.set_token("al", HOUR).await.unwrap();
    let current = replaced(&manager, &first, no_grace()).await;
    log.take();
    for session in [current.id(), never_replaced.id()] {
        let forged = format!("tbs1.YWw.{session}.{}", "A".repeat(43));
        assert!(manager.check_token(&forged).await.unwrap().is_none());
        let user = manager.check_token_or_update_user(&forged, None).await;
        assert!(user.unwrap().is_none());
        assert!(!manager.refresh_token(&forged, DAY).await.unwrap());
        let replacement = manager.replace_token(&forged, ReplaceOptions::new());
        assert!(matches!(replacement.await.unwrap(), Replacement::NotLive));
        assert!(!manager.delete_token(&forged).await.unwrap());
        assert_eq!(log.take(), ["not_live"; 5]);
    }
    assert!(is_live(&manager, &current).await && is_live(&manager, &never_replaced).await);
}

async fn a_token_that_was_replaced_long_ago_is_unknown(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    let first = manager.set_token("al", HOUR).await.unwrap();
    let second = replaced(&manager, &first, no_grace()).await;
    let mut current = replaced(&manager, &second, no_grace()).await;
    for _ in 0..16 {
        current = replaced(&manager, &current, no_grace()).await;
    }
    log.take();
    assert!(!is_live(&manager, &second).await);
    assert_eq!(log.take(), ["not_live"]);
    assert!(is_live(&manager, &current).await);
    // But the session is named by its first token.
    assert!(!is_live(&manager, &first).await);
    assert_eq!(log.take(), ["reused", "reused"]);
    assert!(!is_live(&manager, &current).await);
}

async fn the_others_end_in_the_same_step(backend: &impl Backend) {
    let (manager, log) = logged(backend).await;
    let mine = manager.set_token("al", HOUR).await.unwrap();
    let others = [
        manager.set_token("al", HOUR).await.unwrap(),
        manager.set_token("al", HOUR).await.unwrap(),
    ];
    let of_bo = manager.set_token("bo", HOUR).await.unwrap();
    let options = ReplaceOptions::new().grace(HOUR).end_others();
    let replacement = manager.replace_token(mine.expose_secret(), options);
    let Replacement::Replaced { issued, ended, .. } = replacement.await.unwrap() else {
        panic!("the token is live");
    };
    assert_eq!(ended, 2);
    assert_eq!(log.take(), ["replaced", "logged out all"]);
    for other in &others {
        assert!(!is_live(&manager, other).await);
    }
    // The replaced token is one of the same session.
    for live in [&mine, &issued.token, &of_bo] {
        assert!(is_live(&manager, live).await);
    }
}

async fn one_of_many_replacements_gets_the_token(backend: &impl Backend) {
    let managers = [logged(backend).await.0, logged(backend).await.0];
    let mut token = managers[0].set_token("al", DAY).await.unwrap();
    for _ in 0..5 {
        let replacements = at_once(50, |task| {
            let (manager, token) = (managers[task % 2].clone(), token.clone());
            async move {
                let options = ReplaceOptions::new().grace(HOUR);
                let replacement = manager.replace_token(token.expose_secret(), options);
                replacement.await.unwrap()
            }
        });
        let mut new = Vec::new();
        for replacement in replacements.await {
            match replacement {
                Replacement::Replaced { issued, .. } => new.push(issued.token),
                Replacement::AlreadyReplaced => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(new.len(), 1, "number of new tokens");
        assert!(is_live(&managers[0], &token).await, "it is in its grace");
        token = new.remove(0);
        assert!(is_live(&managers[1], &token).await);
    }
    assert_eq!(managers[0].list_user_tokens("al").await.unwrap().len(), 1);
}

/// Whatever is in flight: once the logout has returned, no token that a replacement issues is live.
async fn a_replacement_does_not_outlive_a_logout_of_all(backend: &impl Backend) {
    let managers = [logged(backend).await.0, logged(backend).await.0];
    for round in 0..20 {
        let token = managers[0].set_token("al", DAY).await.unwrap();
        let issued = at_once(8, |task| {
            let (manager, token) = (managers[task % 2].clone(), token.clone());
            async move {
                if task == 0 {
                    manager.delete_user_tokens("al").await.unwrap();
                    return None;
                }
                let options = ReplaceOptions::new();
                let options = match task % 3 {
                    0 => options.end_others(),
                    _ => options,
                };
                let replacement = manager.replace_token(token.expose_secret(), options);
                match replacement.await.unwrap() {
                    Replacement::Replaced { issued, .. } => Some(issued.token),
                    _ => None,
                }
            }
        });
        let issued: Vec<_> = issued.await.into_iter().flatten().collect();
        assert!(issued.len() <= 1);
        for token in issued.iter().chain([&token]) {
            assert!(!is_live(&managers[1], token).await, "round {round}");
        }
        assert_eq!(managers[0].list_user_tokens("al").await.unwrap(), []);
    }
}
