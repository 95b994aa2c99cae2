//! A TCP proxy that delays, loses or refuses what passes through it.

use std::{
    future,
    io::{self, ErrorKind},
    mem,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// A proxy on a loopback port of its own, in front of another one; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy that passes everything on to 127.0.0.1:`upstream_port`.
    pub async fn start(upstream_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let shared = Arc::new(Shared::default());
        shared.upstream_port.store(upstream_port, Ordering::Relaxed);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            port,
            shared,
            accepting,
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New flows lead to 127.0.0.1:`upstream_port` from now on; existing flows go on where they are.
    pub fn redirect(&self, upstream_port: u16) {
        let port = &self.shared.upstream_port;
        port.store(upstream_port, Ordering::Relaxed);
    }

    /// From now on every byte takes this much longer (in milliseconds, rounded up), each way.
    ///
    /// Only the latency grows: any number of bytes can be under way.
    pub fn set_delay(&self, delay: Duration) {
        *lock(&self.shared.delay) = delay;
    }

    /// The flows of this moment stay open but pass no byte any more, either way; new ones work.
    pub fn black_hole_existing(&self) {
        for flow in &*lock(&self.shared.flows) {
            flow.send_replace(Fate::BlackHoled);
        }
    }

    /// The same for one flow only, by the order in which they began.
    pub fn black_hole(&self, index: usize) {
        lock(&self.shared.flows)[index].send_replace(Fate::BlackHoled);
    }

    /// Whether new flows pass no byte, as if their packets were lost; existing flows go on.
    pub fn black_hole_new(&self, black_hole: bool) {
        let flag = &self.shared.black_hole_new;
        flag.store(black_hole, Ordering::Relaxed);
    }

    /// How many flows are open, black-holed ones included.
    pub fn open_flows(&self) -> usize {
        let flows = lock(&self.shared.flows);
        flows.iter().filter(|flow| !flow.is_closed()).count()
    }

    /// What the clients have sent on black-holed flows.
    pub fn swallowed(&self) -> Vec<u8> {
        lock(&self.shared.swallowed).clone()
    }

    /// Sends something to the server as if the clients of all flows had, between two of their chunks.
    pub fn inject(&self, bytes: &[u8]) {
        for queue in &*lock(&self.shared.to_server) {
            if let Some(queue) = queue.upgrade() {
                // Fails if the flow is ending.
                let _ = queue.send((None, bytes.to_vec()));
            }
        }
    }

    /// Closes the flows of this moment, black-holed ones too; when this returns they are closed.
    pub async fn drop_connections(&self) {
        let flows = mem::take(&mut *lock(&self.shared.flows));
        for flow in &flows {
            flow.send_replace(Fate::Dropped);
        }
        for flow in &flows {
            flow.closed().await;
        }
    }

    /// Whether new connections are closed at once; existing flows go on.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What the proxy and its tasks share.
#[derive(Debug, Default)]
struct Shared {
    upstream_port: AtomicU16,
    delay: Mutex<Duration>,
    refuse: AtomicBool,
    black_hole_new: AtomicBool,
    flows: Mutex<Vec<watch::Sender<Fate>>>,
    /// What the clients have sent on black-holed flows.
    swallowed: Mutex<Vec<u8>>,
    /// What is on its way to the server, by flow.
    to_server: Mutex<Vec<Queue>>,
}

/// Chunks, and when each is due.
type Queue = mpsc::WeakUnboundedSender<(Option<Instant>, Vec<u8>)>;

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passing,
    BlackHoled,
    Dropped,
}

/// Accepts connections for ever; the flows end together with this.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut flows = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        while flows.try_join_next().is_some() {}
        if shared.refuse.load(Ordering::Relaxed) {
            continue;
        }
        let fate = match shared.black_hole_new.load(Ordering::Relaxed) {
            true => Fate::BlackHoled,
            false => Fate::Passing,
        };
        let (fate, watched) = watch::channel(fate);
        let mut known = lock(&shared.flows);
        known.retain(|flow| !flow.is_closed());
        known.push(fate);
        drop(known);
        let upstream_port = shared.upstream_port.load(Ordering::Relaxed);
        flows.spawn(flow(client, upstream_port, Arc::clone(&shared), watched));
    }
}

/// One connection through the proxy, until either side closes it or the proxy drops it.
async fn flow(
    client: TcpStream,
    upstream_port: u16,
    shared: Arc<Shared>,
    mut fate: watch::Receiver<Fate>,
) {
    let watched = fate.clone();
    let pass = async {
        let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream_port)).await else {
            return;
        };
        let _ended = tokio::select! {
            ended = pump(&client, &upstream, &shared, &watched, Some(&shared.swallowed)) => ended,
            ended = pump(&upstream, &client, &shared, &watched, None) => ended,
        };
        swallow_if_black_holed(&watched).await;
    };
    tokio::select! {
        biased;
        _ = fate.wait_for(|&fate| fate == Fate::Dropped) => {}
        () = pass => {}
    }
}

/// Passes bytes on in one direction, each when its time has come, until the sender's end.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    shared: &Shared,
    fate: &watch::Receiver<Fate>,
    swallowed: Option<&Mutex<Vec<u8>>>,
) -> io::Result<()> {
    to.set_nodelay(true)?;
    let (queue, mut due) = mpsc::unbounded_channel();
    if swallowed.is_some() {
        let mut queues = lock(&shared.to_server);
        queues.retain(|queue: &Queue| queue.strong_count() > 0);
        queues.push(queue.downgrade());
    }
    let read = async move {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            from.readable().await?;
            let length = match from.try_read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            chunk.truncate(length);
            if *fate.borrow() == Fate::BlackHoled
                && let Some(swallowed) = swallowed
            {
                lock(swallowed).extend(&chunk);
            }
            let delay = *lock(&shared.delay);
            let delay = (!delay.is_zero()).then(|| Instant::now() + delay);
            // Nobody receives any more: the other half of `try_join` has failed.
            let _ = queue.send((delay, chunk));
        }
    };
    let write = async {
        while let Some((due_at, chunk)) = due.recv().await {
            if let Some(due_at) = due_at {
                sleep_until(due_at).await;
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                to.writable().await?;
                swallow_if_black_holed(fate).await;
                match to.try_write(rest) {
                    Ok(length) => rest = &rest[length..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Never returns for a black-holed flow, which loses its bytes and its end alike.
async fn swallow_if_black_holed(fate: &watch::Receiver<Fate>) {
    let fate = *fate.borrow();
    if fate == Fate::BlackHoled {
        future::pending::<()>().await;
    }
}

/// Locks; no holder of these locks can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Proxy;
    use crate::{Flavor, RedisServer};
    use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
    use std::time::Duration;
    use tokio::{task::JoinSet, time::Instant};

    #[tokio::test]
    async fn a_delay_costs_latency_but_no_throughput() {
        let server = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(server.port()).await;
        let mut client = connect(&proxy).await.expect("a connection");
        proxy.set_delay(Duration::from_millis(100));
        let start = Instant::now();
        let mut pings = JoinSet::new();
        for _ in 0..1000 {
            let mut client = client.clone();
            pings.spawn(async move { ping(&mut client).await });
        }
        for answer in pings.join_all().await {
            answer.expect("a late answer");
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");

        proxy.set_delay(Duration::ZERO);
        let start = Instant::now();
        ping(&mut client).await.expect("an answer");
        assert!(start.elapsed() < Duration::from_millis(200));
    }

    #[tokio::test]
    async fn a_black_hole_takes_existing_flows_only() {
        let server = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(server.port()).await;
        let mut old = connect(&proxy).await.expect("a connection");
        proxy.black_hole_existing();
        assert!(ping(&mut old).await.expect_err("no answer").is_timeout());
        let mut new = connect(&proxy).await.expect("a connection");
        ping(&mut new).await.expect("an answer");

        // Not even the server's end comes through, until the flow is dropped.
        server.kill();
        assert!(!ping(&mut new).await.expect_err("no answer").is_timeout());
        assert!(ping(&mut old).await.expect_err("no answer").is_timeout());
        proxy.drop_connections().await;
        assert!(!ping(&mut old).await.expect_err("no answer").is_timeout());
    }

    #[tokio::test]
    async fn a_black_hole_for_new_flows_leaves_existing_ones_alone() {
        let server = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(server.port()).await;
        let mut old = connect(&proxy).await.expect("a connection");
        proxy.black_hole_new(true);
        assert!(connect(&proxy).await.is_err());
        ping(&mut old).await.expect("an answer");
        proxy.black_hole_new(false);
        connect(&proxy).await.expect("a connection");
    }

    #[tokio::test]
    async fn dropped_and_refused_connections_fail_and_new_ones_work() {
        let server = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(server.port()).await;
        let mut client = connect(&proxy).await.expect("a connection");
        proxy.refuse(true);
        connect(&proxy).await.expect_err("refused");
        ping(&mut client).await.expect("an existing flow goes on");
        proxy.drop_connections().await;
        let error = ping(&mut client).await.expect_err("a closed connection");
        assert!(error.is_connection_dropped(), "{error}");
        proxy.refuse(false);
        let mut client = connect(&proxy).await.expect("a connection");
        ping(&mut client).await.expect("an answer");
    }

    #[tokio::test]
    async fn a_redirected_proxy_leads_new_flows_elsewhere() {
        let (first, second) = tokio::join!(
            RedisServer::start(Flavor::Redis),
            RedisServer::start(Flavor::Redis)
        );
        let proxy = Proxy::start(first.port()).await;
        let name = async |client: &mut MultiplexedConnection| {
            let get = redis::cmd("GET").arg("name").take();
            get.query_async::<String>(client).await.expect("a name")
        };
        first.cmd(&["SET", "name", "first"]).await;
        second.cmd(&["SET", "name", "second"]).await;
        let mut old = connect(&proxy).await.expect("a connection");
        proxy.redirect(second.port());
        let mut new = connect(&proxy).await.expect("a connection");
        assert_eq!(name(&mut old).await, "first");
        assert_eq!(name(&mut new).await, "second");
    }

    #[tokio::test]
    async fn a_proxy_of_nothing_closes_and_a_dropped_proxy_is_gone() {
        let server = RedisServer::start(Flavor::Redis).await;
        let proxy = Proxy::start(server.port()).await;
        server.kill();
        connect(&proxy).await.expect_err("no server");
        server.restart().await;
        let mut client = connect(&proxy).await.expect("a connection");
        drop(proxy);
        assert!(
            ping(&mut client)
                .await
                .expect_err("closed")
                .is_connection_dropped()
        );
    }

    /// A connection through a proxy, with time-outs of half a second.
    async fn connect(proxy: &Proxy) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_millis(500)));
        Client::open(format!("redis://127.0.0.1:{}", proxy.port()))?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// A round trip.
    async fn ping(client: &mut MultiplexedConnection) -> RedisResult<()> {
        redis::cmd("PING").query_async(client).await
    }
}
