//! Requests of many users, whose checks the process can answer itself.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use axum::{
    Router,
    http::{Request, Response, StatusCode, header::AUTHORIZATION},
};
use tower_bearer_session::{MemoryStore, SessionLayer, SessionStore, TokenManager};
use tower_http::validate_request::{ValidateRequest, ValidateRequestHeaderLayer};

use super::{
    harness::{Flavor, RedisServer},
    http::{COLUMNS, Server, fixed_token, plain, requests},
    load::one_thread,
    report::Report,
    system_under_test::{Profile, SystemUnderTest, near_store, redis_store},
};

const ROUNDS: usize = 31;
const USERS: usize = 10_000;

pub(crate) fn run(report: &mut Report) {
    report.group(
        "In the process",
        "Like *HTTP*, with requests of 10,000 users in turn, whose details have three fields. The map by hand is the limit \
         of whatever looks tokens up: from the token to what a handler gets, which it puts into the extensions in two \
         entries, and nothing else. The static bearer token is one for all.",
    );
    let runtime = one_thread();
    let redis = runtime.block_on(RedisServer::start(Flavor::Redis));
    let (for_near, for_plain) = (redis.url(), redis.url());
    let servers = [
        ("map by hand", Server::start(map_by_hand)),
        ("static bearer token", Server::start(fixed_token)),
        (
            "SessionLayer, memory, no loader",
            Server::start(async || {
                let manager = TokenManager::new(MemoryStore::new());
                let mut tokens = Vec::new();
                for n in 0..USERS {
                    let token = manager.set_token(&format!("user-{n}"), None).await.unwrap();
                    tokens.push(token.expose_secret().to_owned());
                }
                (plain().layer(SessionLayer::new(manager)), tokens)
            }),
        ),
        (
            "SessionLayer, memory",
            Server::start(async || layered(MemoryStore::new()).await),
        ),
        (
            "SessionLayer, Redis, near-cache",
            Server::start(async move || layered(near_store(&for_near).await).await),
        ),
        (
            "SessionLayer, Redis",
            Server::start(async move || layered(redis_store(&for_plain).await).await),
        ),
    ];
    let rounds = requests(&runtime, &redis, &servers, ROUNDS);
    report.table("10,000 users in turn", &COLUMNS, &rounds);
    report.table("With Redis", &COLUMNS, &rounds.only(&[5, 4]));
}

async fn layered(store: impl SessionStore) -> (Router, Vec<String>) {
    let subject = SystemUnderTest::on(store).await;
    let users = subject.others(USERS).await;
    let tokens = users.into_iter().map(|user| user.token).collect();
    (plain().layer(SessionLayer::new(subject.manager)), tokens)
}

/// What a handler gets.
#[derive(Clone)]
struct Found {
    user: Arc<str>,
    profile: Arc<Profile>,
}

async fn map_by_hand() -> (Router, Vec<String>) {
    let subject = SystemUnderTest::on(MemoryStore::new()).await;
    let users = subject.others(USERS).await;
    let entries = users
        .iter()
        .map(|user| (user.token.clone(), user.user_id.clone()));
    let layer = by_hand(entries.collect());
    let tokens = users.into_iter().map(|user| user.token).collect();
    (plain().layer(layer), tokens)
}

/// Looks tokens up in a map, to users with these ids.
pub(crate) fn by_hand<B: Default>(
    users: Vec<(String, String)>,
) -> ValidateRequestHeaderLayer<impl ValidateRequest<B, ResponseBody = B> + Clone> {
    let entry = |(token, user_id): (String, String)| {
        let profile = Profile {
            email: format!("{user_id}@example.org"),
            name: user_id.clone(),
            roles: vec!["reader".to_owned(), "writer".to_owned()],
        };
        let (user, profile) = (user_id.into(), Arc::new(profile));
        (token, Found { user, profile })
    };
    let map: HashMap<String, Found> = users.into_iter().map(entry).collect();
    let map = Arc::new(RwLock::new(map));
    let look_up = move |request: &mut Request<B>| {
        let header = request.headers().get(AUTHORIZATION);
        let token = header.and_then(|header| header.to_str().ok()?.strip_prefix("Bearer "));
        let found = token.and_then(|token| map.read().unwrap().get(token).cloned());
        let Some(Found { user, profile }) = found else {
            let mut refusal = Response::new(B::default());
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            return Err(refusal);
        };
        request.extensions_mut().insert(user);
        request.extensions_mut().insert(profile);
        Ok(())
    };
    ValidateRequestHeaderLayer::custom(look_up)
}
