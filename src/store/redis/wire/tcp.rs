//! TCP connections.

use std::{io, net::SocketAddr, time::Duration};

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, task::JoinSet};

/// A peer that has not acknowledged data or keepalive probes for this long is gone.
const DEAD_PEER: Duration = Duration::from_secs(2);

/// Connects to all peers at once; the first that succeeds is it.
pub(super) async fn first<S, F>(
    peers: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<S>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut attempts = JoinSet::new();
    for peer in peers {
        attempts.spawn(connect(peer));
    }
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    while let Some(attempt) = attempts.join_next().await {
        outcome = attempt?;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

pub(super) async fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(peer).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_PEER)
        .with_interval(DEAD_PEER / 2);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(DEAD_PEER))?;
    Ok(stream)
}
