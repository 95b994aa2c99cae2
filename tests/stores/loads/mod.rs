//! How users get into the cache: one load at a time, and never old data over new.

mod cache;
mod cache_misses;
mod freshness;
mod missing;
mod refresh;
mod runtime;
mod shared;
mod stampede;
mod unreadable;

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tower_bearer_session::{Error, LoadUser, TokenManager, TokenManagerBuilder, User};

use crate::stores::{Backend, HOUR};

/// How long anything may take that has to happen, on however busy a machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// A question of the loader, which the test answers when it likes.
struct Question {
    user_id: String,
    reply: oneshot::Sender<Answer>,
}

enum Answer {
    Detail(String),
    NoSuchUser,
    Failure(&'static str),
    Panic,
}

impl Question {
    fn detail(self, detail: &str) {
        self.answer(Answer::Detail(detail.to_owned()));
    }

    fn answer(self, answer: Answer) {
        // The loader may have been given up meanwhile.
        let _ = self.reply.send(answer);
    }
}

/// What the loader asks.
struct Questions(mpsc::UnboundedReceiver<Question>);

impl Questions {
    async fn next(&mut self) -> Question {
        let question = timeout(LONG_TIMEOUT, self.0.recv()).await;
        question.expect("a load").expect("a loader")
    }

    /// There is none that was not taken yet.
    fn assert_none(&mut self) {
        assert!(self.0.try_recv().is_err(), "a load that should not be");
    }
}

/// A loader that asks the test.
fn asking() -> (impl LoadUser<String> + Clone, Questions) {
    let (asked, questions) = mpsc::unbounded_channel();
    let loader = move |user_id| {
        let (reply, answer) = oneshot::channel();
        let sent = asked.send(Question { user_id, reply });
        async move {
            sent.map_err(|_| io::Error::other("the test is over"))?;
            match answer.await {
                Ok(Answer::Detail(detail)) => Ok(Some(detail)),
                Ok(Answer::NoSuchUser) => Ok(None),
                Ok(Answer::Failure(message)) => Err(io::Error::other(message)),
                Ok(Answer::Panic) => panic!("the loader panics, as it was told"),
                Err(_) => Err(io::Error::other("the test did not answer")),
            }
        }
    };
    (loader, Questions(questions))
}

/// A manager with a loader that asks the test, and a live token of `al`.
async fn asking_manager(backend: &impl Backend) -> (TokenManager<String>, Questions, String) {
    let (loader, questions) = asking();
    let manager = built(asking_builder(backend, loader).await);
    let token = log_in(&manager, "al").await;
    (manager, questions, token)
}

/// Two managers with stores of their own and one loader, which asks the test; and a live token of `al`.
async fn two_asking_managers(
    backend: &impl Backend,
) -> ([TokenManager<String>; 2], Questions, String) {
    let (loader, questions) = asking();
    let first = asking_builder(backend, loader.clone()).await;
    let second = asking_builder(backend, loader).await;
    let managers = [first, second].map(built);
    let token = log_in(&managers[0], "al").await;
    (managers, questions, token)
}

/// Remembers for an hour that there is no such user: by default a busy machine could outlive that.
async fn asking_builder(
    backend: &impl Backend,
    loader: impl LoadUser<String>,
) -> TokenManagerBuilder<String> {
    let builder = backend.manager_builder().await;
    builder.missing_user_ttl(HOUR).load_user(loader)
}

fn built<D>(builder: TokenManagerBuilder<D>) -> TokenManager<D> {
    builder.build().expect("a valid configuration")
}

async fn log_in<D>(manager: &TokenManager<D>, user_id: &str) -> String {
    let token = manager.set_token(user_id, HOUR).await.expect("a login");
    token.expose_secret().to_owned()
}

/// What a check in a task of its own will say of the user's detail.
type Checking = JoinHandle<Result<Option<String>, Error>>;

/// Checks in a task of its own.
fn checking(manager: &TokenManager<String>, token: &str) -> Checking {
    let (manager, token) = (manager.clone(), token.to_owned());
    tokio::spawn(async move {
        let user = manager.check_token_or_update_user(&token, None).await?;
        Ok(user.map(|user| detail(&user)))
    })
}

/// Checks, which must find the user in the cache.
async fn cached(manager: &TokenManager<String>, token: &str) -> Option<String> {
    let checked = timeout(LONG_TIMEOUT, checking(manager, token)).await;
    let checked = checked.expect("a cached user, so that nothing is asked");
    checked.expect("no panic").expect("no error")
}

fn detail(user: &User<String>) -> String {
    user.detail().expect("a detail").clone()
}

/// A manager whose loader knows this one detail, and how often it was asked.
async fn loading<D>(backend: &impl Backend, detail: D) -> (TokenManager<D>, Arc<AtomicUsize>)
where
    D: Clone + Send + Sync + 'static,
{
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let builder = backend.manager_builder().await.load_user(move |_| {
        counted.fetch_add(1, SeqCst);
        let detail = detail.clone();
        async move { Ok::<_, Infallible>(Some(detail)) }
    });
    (built(builder), loads)
}
