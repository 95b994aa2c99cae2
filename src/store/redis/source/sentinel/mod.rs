//! Finding the master through sentinels.
//!
//! Every sentinel is polled over a connection of its own: once a second, and at once when it announces a step of a
//! failover or a link could not connect. The answer with the highest *configuration epoch* counts, because every
//! failover raises the epoch: a sentinel that is cut off, or that has not learned of a failover yet, has a lower one.
//!
//! A replica that the sentinel of such an answer has told to become the master is the master as soon as it says so
//! itself, and for as long as it does and the sentinel has not given the failover up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    announcements::News,
    board::{Answer, Board, Verdict},
    promotion::Promotion,
};
use crate::{
    Error, ErrorKind,
    store::redis::{
        conn::{health::Status, link_config::LinkConfig},
        wire::{
            address::Address,
            dial::{Dialer, Seed},
            errors::ErrorText,
            fault::Fault,
        },
    },
};

mod announcements;
mod board;
mod identity;
mod promotion;
mod seeds;

/// The interval between two polls of a sentinel.
const POLL: Duration = Duration::from_secs(1);
/// The minimum time between two polls of a sentinel.
const PAUSE: Duration = Duration::from_millis(20);

/// The sentinels of a service.
pub(crate) struct Sentinels {
    shared: Arc<Shared>,
    asking: AbortHandle,
}

struct Shared {
    service: String,
    /// Connects to the sentinels.
    dialer: Dialer,
    /// Connects to the servers that the sentinels monitor.
    nodes: Dialer,
    timeout: Duration,
    errors: ErrorText,
    status: Arc<Status>,
    board: Mutex<Board>,
    view: watch::Sender<View>,
    again: watch::Sender<()>,
}

/// What is known of the master.
#[derive(Clone)]
enum View {
    Asking,
    Known(Address),
    Unknown(Error),
}

impl Sentinels {
    /// Starts to poll the sentinels, in background tasks.
    pub(crate) fn start(
        config: &LinkConfig,
        dialer: Dialer,
        configured: Vec<Address>,
        service: String,
    ) -> Self {
        let shared = Arc::new(Shared {
            service,
            dialer,
            nodes: config.dialer.clone(),
            // A sentinel that hangs must not use up the time of a connection attempt.
            timeout: config.connect_timeout / 2,
            errors: config.errors.clone(),
            status: Arc::clone(&config.status),
            board: Mutex::default(),
            view: watch::Sender::new(View::Asking),
            again: watch::Sender::new(()),
        });
        let asking = seeds::ask_all(Arc::clone(&shared), configured);
        let asking = config.runtime.spawn(asking).abort_handle();
        Self { shared, asking }
    }

    /// Waits until the sentinels have named a master, or none of them can.
    pub(crate) async fn master(&self) -> Result<Address, Error> {
        let mut view = self.shared.view.subscribe();
        let known = view.wait_for(|view| !matches!(view, View::Asking)).await;
        match known.as_deref() {
            Ok(View::Known(master)) => Ok(master.clone()),
            Ok(View::Unknown(error)) => Err(error.clone()),
            // Unreachable: the sender is in `self`, and the wait has ended.
            Ok(View::Asking) | Err(_) => Err(self.shared.no_master(&[])),
        }
    }

    pub(crate) fn known_master(&self) -> Option<Address> {
        match &*self.shared.view.borrow() {
            View::Known(master) => Some(master.clone()),
            View::Asking | View::Unknown(_) => None,
        }
    }

    /// Waits until another server than `old` is the master.
    pub(crate) async fn moved_from(&self, old: &Address) {
        let mut view = self.shared.view.subscribe();
        let moved = |view: &View| matches!(view, View::Known(master) if master != old);
        // Cannot fail: the sender is in `self`.
        let _ = view.wait_for(moved).await;
    }

    /// Polls all sentinels soon.
    pub(crate) fn ask_again(&self) {
        self.shared.again.send_replace(());
    }
}

impl Shared {
    /// Polls one sentinel, and reconnects when the connection fails.
    async fn ask_for_ever(self: Arc<Self>, seed: Seed) {
        let address = &seed.address;
        let mut again = self.again.subscribe();
        loop {
            let news = Arc::new(News::new(&self.service));
            let mut connection = match self.connect(&seed, &news).await {
                Ok(connection) => Some(connection),
                Err(error) => {
                    self.note(address, Err(error));
                    None
                }
            };
            let mut promotion = None;
            while let Some(live) = &mut connection {
                let asked = Instant::now();
                let answer = self.ask(live, address).await;
                let works = match &answer {
                    Ok(_) => true,
                    Err(error) => error.kind() == ErrorKind::Config,
                };
                let is_promoting = answer.as_ref().is_ok_and(Answer::is_promoting);
                self.note(address, answer);
                if !is_promoting {
                    promotion = None;
                    // A replica promoted by an earlier failover does not count in the next one.
                    self.note_promoted(address, None);
                }
                if !works {
                    connection = None;
                    continue;
                }
                let replica = tokio::select! {
                    replica = news.changed() => replica,
                    _ = again.changed() => None,
                    () = sleep(POLL) => None,
                };
                if let Some(replica) = replica {
                    // The previous watch must end before the next one starts.
                    drop(promotion.take());
                    promotion = Some(Promotion::watch(&self, address, replica));
                }
                sleep_until(asked + PAUSE).await;
            }
            tokio::select! {
                _ = again.changed() => {}
                () = sleep(POLL) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// Connects to a sentinel, and subscribes to its announcements of failovers.
    async fn connect(&self, seed: &Seed, news: &Arc<News>) -> Result<MultiplexedConnection, Error> {
        let news = Arc::clone(news);
        let connecting = async {
            let on_push = move |push| news.take(push);
            let mut connection = self.dialer.dial_seed(seed, on_push).await?;
            announcements::subscribe(&mut connection).await?;
            Ok(connection)
        };
        self.in_time(&seed.address, connecting).await
    }

    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        address: &Address,
    ) -> Result<Answer, Error> {
        // While a failover reconfigures the replicas, the first command still returns the old master, with the new
        // epoch. The second one returns the new master.
        let mut questions = redis::pipe();
        let question = questions.cmd("SENTINEL");
        question.arg("MASTER").arg(&self.service);
        let question = questions.cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let asking = questions.query_async::<(HashMap<String, String>, (String, u16))>(connection);
        let (state, (host, port)) = self.in_time(address, asking).await?;
        let master = Address::new(host, port);
        let answer = master.and_then(|master| Answer::read(&state, master, Instant::now()));
        answer.ok_or_else(|| {
            let message = format!("the sentinel at {address} says nothing of where the master is");
            Error::new(ErrorKind::Store, message)
        })
    }

    async fn in_time<T>(
        &self,
        address: &Address,
        work: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, Error> {
        match timeout(self.timeout, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) if error.to_string().contains("No such master with that name") => {
                let message = format!(
                    "the sentinel at {address} knows no master with the name {:?}",
                    self.service
                );
                Err(Error::new(ErrorKind::Config, message))
            }
            Ok(Err(error)) => {
                let fault = Fault::of(&error);
                let error = self.errors.convert_at(address, &error);
                Err(match fault {
                    // Without this right the master cannot be found, as without a login.
                    Fault::NoPermission => Error::with_source(
                        ErrorKind::Unavailable,
                        format!("the sentinel at {address} refuses"),
                        error,
                    ),
                    _ => error,
                })
            }
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "no answer from the sentinel at {address} within {:?}",
                    self.timeout
                ),
            )),
        }
    }

    /// Records the answer of a sentinel.
    fn note(&self, sentinel: &Address, said: Result<Answer, Error>) {
        if let Err(error) = &said {
            self.status.note(error);
        }
        let mut board = self.board();
        if let Some(voice) = board.voices.get_mut(sentinel) {
            voice.said = Some(said);
            self.conclude(&mut board);
        }
    }

    /// Records the replica that this sentinel has promoted and that is a master now.
    fn note_promoted(&self, sentinel: &Address, replica: Option<Address>) {
        let mut board = self.board();
        if let Some(voice) = board.voices.get_mut(sentinel)
            && voice.promoted != replica
        {
            voice.promoted = replica;
            self.conclude(&mut board);
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the conclusion from the answers of all sentinels.
    fn conclude(&self, board: &mut Board) {
        let view = match board.verdict(Instant::now()) {
            Verdict::Undecided => return,
            Verdict::Master(master) => View::Known(master),
            Verdict::NoMaster(errors) => View::Unknown(self.no_master(&errors)),
        };
        self.view.send_if_modified(|old| {
            let news = match (&*old, &view) {
                (View::Known(old), View::Known(new)) => old != new,
                _ => true,
            };
            *old = view;
            news
        });
    }

    fn no_master(&self, errors: &[Error]) -> Error {
        let unknown = |error: &Error| error.kind() == ErrorKind::Config;
        if !errors.is_empty() && errors.iter().all(unknown) {
            let service = &self.service;
            let message = format!("the sentinels know no master with the name {service:?}");
            return Error::new(ErrorKind::Unavailable, message);
        }
        let message = "no sentinel says who the master is";
        ErrorText::all(ErrorKind::Unavailable, message, errors)
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        self.asking.abort();
    }
}
