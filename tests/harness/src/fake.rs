//! A server that says what a test tells it to, for what a real one cannot be made to say.

use std::{
    fmt,
    future::pending,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};

/// The reply to a command, as it is sent; `None`: the connection hangs from then on.
pub type Reply = Option<String>;

type Answer = dyn Fn(&[&str]) -> Reply + Send + Sync;

/// A server on a loopback port of its own; ends when dropped.
///
/// It greets clients as a master, tells the time, and lets clients subscribe to any channel unless the test refuses.
pub struct FakeServer {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    answer: Mutex<Arc<Answer>>,
    commands: Mutex<Vec<String>>,
    connections: AtomicUsize,
    hides_role: AtomicBool,
    /// In seconds since the Unix epoch.
    time: AtomicU64,
    /// What the commands begin with that are held.
    held: Mutex<Option<String>>,
    orders: broadcast::Sender<Order>,
}

/// What all connections are told to do.
#[derive(Clone)]
enum Order {
    /// A message on a channel.
    Publish(String, String),
    /// Something unasked.
    Say(String),
    /// The reply to a command that is held.
    Release(String),
    Disconnect,
}

impl FakeServer {
    /// Starts a server that never answers, until [`answer`](Self::answer) says otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let shared = Arc::new(Shared {
            answer: Mutex::new(Arc::new(|_: &[&str]| None)),
            commands: Mutex::default(),
            connections: AtomicUsize::new(0),
            hides_role: AtomicBool::new(false),
            time: AtomicU64::new(2_000_000_000),
            held: Mutex::default(),
            orders: broadcast::Sender::new(1024),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            port,
            shared,
            accepting,
        }
    }

    /// From now on commands are answered like this.
    pub fn answer(&self, answer: impl Fn(&[&str]) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.answer) = Arc::new(answer);
    }

    /// From now on `HELLO` tells no role, as with some proxies.
    pub fn hide_role(&self) {
        self.shared.hides_role.store(true, Ordering::SeqCst);
    }

    /// From now on the clock shows this time, in seconds since the Unix epoch, and stands still.
    pub fn set_time(&self, seconds: u64) {
        self.shared.time.store(seconds, Ordering::SeqCst);
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many commands came that begin with these words.
    pub fn calls(&self, words: &str) -> usize {
        let commands = lock(&self.shared.commands);
        let calls = commands.iter().filter(|command| command.starts_with(words));
        calls.count()
    }

    /// Sends a message to those who have subscribed to the channel.
    pub fn publish(&self, channel: &str, message: &str) {
        self.order(Order::Publish(channel.to_owned(), message.to_owned()));
    }

    /// From now on a command that begins with these words is answered when the test [releases](Self::release) it, and
    /// those that follow it on the connection after that. Without words none is held.
    pub fn hold(&self, words: Option<&str>) {
        *lock(&self.shared.held) = words.map(str::to_owned);
    }

    /// Answers the commands that are held.
    pub fn release(&self, reply: &str) {
        self.order(Order::Release(reply.to_owned()));
    }

    /// Says something unasked, to all clients.
    pub fn say(&self, what: &str) {
        self.order(Order::Say(what.to_owned()));
    }

    /// Closes all connections.
    pub fn disconnect(&self) {
        self.order(Order::Disconnect);
    }

    fn order(&self, order: Order) {
        // Nobody may be connected.
        let _ = self.shared.orders.send(order);
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for FakeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeServer")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// A string.
pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// An array of replies.
pub fn array(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    format!("*{}\r\n{}", items.len(), items.concat())
}

/// An error, beginning with its code.
pub fn error(text: &str) -> String {
    format!("-{text}\r\n")
}

/// Nil.
pub const NIL: &str = "_\r\n";

/// Accepts connections for ever; they end together with this.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        shared.connections.fetch_add(1, Ordering::SeqCst);
        clients.spawn(serve(client, Arc::clone(&shared)));
    }
}

/// Answers one client until it goes.
async fn serve(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut orders = shared.orders.subscribe();
    let (reader, mut writer) = client.into_split();
    let mut commands = command_stream(reader);
    let mut channels = Vec::new();
    let mut is_held = false;
    loop {
        tokio::select! {
            order = orders.recv() => match order.expect("a test that orders less") {
                Order::Publish(channel, message) if channels.contains(&channel) => {
                    let parts = ["message", &channel, &message].map(bulk).concat();
                    writer.write_all(format!(">3\r\n{parts}").as_bytes()).await?;
                }
                Order::Release(reply) if is_held => {
                    is_held = false;
                    writer.write_all(reply.as_bytes()).await?;
                }
                Order::Say(what) => writer.write_all(what.as_bytes()).await?,
                Order::Disconnect => return Ok(()),
                Order::Publish(..) | Order::Release(_) => {}
            },
            command = commands.recv(), if !is_held => {
                let Some(command) = command else { return Ok(()) };
                let words: Vec<&str> = command.iter().map(String::as_str).collect();
                let line = words.join(" ");
                is_held = lock(&shared.held).as_ref().is_some_and(|held| line.starts_with(held));
                lock(&shared.commands).push(line);
                if is_held {
                    continue;
                }
                let answer = Arc::clone(&lock(&shared.answer));
                let tells_role = !shared.hides_role.load(Ordering::SeqCst);
                let time = shared.time.load(Ordering::SeqCst);
                let mut reply = greeting(&words, tells_role, time).or_else(|| answer(&words));
                if let (["SUBSCRIBE", more @ ..], None) = (&words[..], &reply) {
                    channels.extend(more.iter().map(|&channel| channel.to_owned()));
                    reply = Some(subscribed(more));
                }
                match reply {
                    Some(reply) => writer.write_all(reply.as_bytes()).await?,
                    None => pending().await,
                }
            }
        }
    }
}

/// What every server says.
fn greeting(words: &[&str], tells_role: bool, time: u64) -> Reply {
    Some(match words {
        ["HELLO", ..] if !tells_role => format!("%1\r\n{}:3\r\n", bulk("proto")),
        ["HELLO", ..] => {
            let [proto, role, master] = ["proto", "role", "master"].map(bulk);
            format!("%2\r\n{proto}:3\r\n{role}{master}")
        }
        ["CLIENT", "TRACKINGINFO"] => format!("%1\r\n{}~1\r\n+on\r\n", bulk("flags")),
        ["CLIENT" | "SELECT" | "ASKING", ..] => "+OK\r\n".to_owned(),
        ["TIME"] => array([&*time.to_string(), "0"].map(bulk)),
        _ => return None,
    })
}

/// The confirmation of subscriptions.
fn subscribed(channels: &[&str]) -> String {
    let confirmed = channels
        .iter()
        .map(|channel| format!(">3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel)));
    confirmed.collect()
}

/// The commands of a client, read by a task of their own: reading one must not be cut short.
fn command_stream(
    reader: impl io::AsyncRead + Unpin + Send + 'static,
) -> tokio::sync::mpsc::Receiver<Vec<String>> {
    let (sender, commands) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut reader = BufReader::new(reader);
        while let Ok(command) = read_command(&mut reader).await {
            if sender.send(command).await.is_err() {
                return;
            }
        }
    });
    commands
}

async fn read_command(
    reader: &mut BufReader<impl io::AsyncRead + Unpin>,
) -> io::Result<Vec<String>> {
    let mut command = Vec::new();
    for _ in 0..read_number(reader).await? {
        let mut word = vec![0; read_number(reader).await? + 2];
        reader.read_exact(&mut word).await?;
        word.truncate(word.len() - 2);
        command.push(String::from_utf8_lossy(&word).into_owned());
    }
    Ok(command)
}

/// The number in a line such as `*3`.
async fn read_number(reader: &mut BufReader<impl io::AsyncRead + Unpin>) -> io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let number = line.trim_end().get(1..).unwrap_or_default().parse();
    number.map_err(io::Error::other)
}

/// Locks; no holder of these locks can panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
