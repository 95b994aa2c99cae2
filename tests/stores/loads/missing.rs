use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tower_bearer_session::TokenManager;

use super::{Answer, asking_manager, built, cached, checking, log_in};
use crate::stores::{Backend, HOUR, SHORT, on_every_store, outlive_short};

on_every_store!(
    a_user_who_is_gone_is_refused_and_not_asked_for_again,
    everybody_is_told_that_there_is_no_such_user,
    it_is_forgotten_in_time_that_a_user_is_gone,
    add_user_brings_a_user_back,
    add_user_of_a_user_who_is_gone_ends_the_checks,
    delete_user_makes_a_missing_user_be_asked_for_again,
    defaults_of_less_than_a_millisecond_count_as_one,
);

/// Stores keep whole milliseconds, and the builder's durations become such as any others do.
async fn defaults_of_less_than_a_millisecond_count_as_one(backend: &impl Backend) {
    let tiny = Duration::from_micros(1);
    let builder = backend.manager_builder().await;
    let builder = builder
        .token_ttl(tiny)
        .user_ttl(tiny)
        .missing_user_ttl(tiny);
    let builder =
        builder.load_user(async |id: String| Ok::<_, Infallible>((id == "al").then_some(id)));
    let manager = built(builder);
    manager.set_token("al", None).await.unwrap();
    assert!(manager.add_user("al", None).await.unwrap().is_some());
    assert!(manager.add_user("bo", None).await.unwrap().is_none());
}

/// "No such user" is remembered, at all services: a deleted user's client cannot hammer the database.
async fn a_user_who_is_gone_is_refused_and_not_asked_for_again(backend: &impl Backend) {
    let users = Users::default();
    let [first, second] = [
        users.manager(backend, HOUR).await,
        users.manager(backend, HOUR).await,
    ];
    let token = log_in(&first, "al").await;
    for _ in 0..20 {
        assert_eq!(cached(&first, &token).await, None);
        assert_eq!(cached(&second, &token).await, None);
    }
    assert_eq!(users.loads(), 1);
    // The session is still there, should the user come back.
    assert!(first.check_token(&token).await.unwrap().is_some());
}

/// All who waited for the load are refused.
async fn everybody_is_told_that_there_is_no_such_user(backend: &impl Backend) {
    let (manager, mut questions, token) = asking_manager(backend).await;
    let checks = [(); 10].map(|()| checking(&manager, &token));
    questions.next().await.answer(Answer::NoSuchUser);
    for check in checks {
        assert_eq!(check.await.unwrap().unwrap(), None);
    }
    questions.assert_none();
}

/// After `missing_user_ttl` the loader is asked again.
async fn it_is_forgotten_in_time_that_a_user_is_gone(backend: &impl Backend) {
    let users = Users::default();
    let manager = users.manager(backend, SHORT).await;
    let token = log_in(&manager, "al").await;
    assert_eq!(cached(&manager, &token).await, None);
    outlive_short().await;
    users.exist(true);
    assert_eq!(cached(&manager, &token).await.as_deref(), Some("al"));
    assert_eq!(users.loads(), 2);
}

/// A user who comes back need not wait when the application says so.
async fn add_user_brings_a_user_back(backend: &impl Backend) {
    let users = Users::default();
    let manager = users.manager(backend, HOUR).await;
    let token = log_in(&manager, "al").await;
    assert_eq!(cached(&manager, &token).await, None);
    users.exist(true);
    assert_eq!(cached(&manager, &token).await, None);
    assert!(manager.add_user("al", None).await.unwrap().is_some());
    assert_eq!(cached(&manager, &token).await.as_deref(), Some("al"));
    assert_eq!(users.loads(), 2);
}

/// A user who was deleted is refused at once when the application says so.
async fn add_user_of_a_user_who_is_gone_ends_the_checks(backend: &impl Backend) {
    let users = Users::default();
    users.exist(true);
    let manager = users.manager(backend, HOUR).await;
    let token = log_in(&manager, "al").await;
    assert_eq!(cached(&manager, &token).await.as_deref(), Some("al"));
    users.exist(false);
    assert!(manager.add_user("al", None).await.unwrap().is_none());
    assert_eq!(cached(&manager, &token).await, None);
    assert_eq!(users.loads(), 2);
}

/// Forgetting a user missing that there is none, too.
async fn delete_user_makes_a_missing_user_be_asked_for_again(backend: &impl Backend) {
    let users = Users::default();
    let manager = users.manager(backend, HOUR).await;
    let token = log_in(&manager, "al").await;
    assert_eq!(cached(&manager, &token).await, None);
    users.exist(true);
    manager.delete_user("al").await.unwrap();
    assert_eq!(cached(&manager, &token).await.as_deref(), Some("al"));
    assert_eq!(users.loads(), 2);
}

/// A database in which all users exist, or none; counts how often it is asked.
#[derive(Clone, Default)]
struct Users {
    exist: Arc<AtomicBool>,
    loads: Arc<AtomicUsize>,
}

impl Users {
    async fn manager(&self, backend: &impl Backend, missing_ttl: Duration) -> TokenManager<String> {
        let users = self.clone();
        let builder = backend.manager_builder().await.load_user(move |id| {
            users.loads.fetch_add(1, SeqCst);
            let user = users.exist.load(SeqCst).then_some(id);
            async { Ok::<_, Infallible>(user) }
        });
        built(builder.missing_user_ttl(missing_ttl))
    }

    fn exist(&self, exist: bool) {
        self.exist.store(exist, SeqCst);
    }

    fn loads(&self) -> usize {
        self.loads.load(SeqCst)
    }
}
