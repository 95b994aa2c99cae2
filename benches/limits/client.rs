//! A light HTTP client: prepared requests on connections that stay open.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::TcpStream;

use super::{
    load::{Figures, Laps, Load},
    system_under_test::in_turn,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

pub(crate) struct HttpClient {
    connections: Vec<Arc<TcpStream>>,
    /// Of one user each.
    requests: Arc<[Box<[u8]>]>,
    /// All responses are as long as the first one.
    length: usize,
}

impl HttpClient {
    /// A client that sends the tokens in turn.
    pub(crate) async fn connect(to: SocketAddr, tokens: &[String], connections: usize) -> Self {
        let request = |token| {
            format!("GET / HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer {token}\r\n\r\n")
        };
        let requests = tokens
            .iter()
            .map(|token| request(token).into_bytes().into());
        let mut client = Self {
            connections: Vec::new(),
            requests: requests.collect(),
            length: 0,
        };
        for _ in 0..connections {
            let stream = TcpStream::connect(to).await.unwrap();
            stream.set_nodelay(true).unwrap();
            client.connections.push(Arc::new(stream));
        }
        let first = &client.connections[0];
        send(first, &client.requests[0]).await;
        client.length = whole_response(first).await;
        client
    }

    /// One round, in which each task has a connection of its own.
    pub(crate) fn run(&self, load: &Load<'_>) -> Figures {
        assert_eq!(load.tasks, self.connections.len());
        let next = AtomicUsize::new(0);
        load.run(|laps| {
            let connection = &self.connections[next.fetch_add(1, Ordering::Relaxed)];
            requests(
                Arc::clone(connection),
                Arc::clone(&self.requests),
                self.length,
                laps,
            )
        })
    }
}

async fn requests(
    stream: Arc<TcpStream>,
    requests: Arc<[Box<[u8]>]>,
    length: usize,
    mut laps: Laps,
) -> Laps {
    let mut response = vec![0; length];
    let mut turns = in_turn(&requests);
    while laps.next() {
        send(&stream, turns.next().unwrap()).await;
        let mut read = 0;
        while read < length {
            read += receive(&stream, &mut response[read..]).await;
        }
        assert!(response.starts_with(OK), "a request was refused");
    }
    laps
}

async fn send(stream: &TcpStream, request: &[u8]) {
    stream.writable().await.unwrap();
    let written = stream.try_write(request).unwrap();
    assert_eq!(written, request.len(), "the socket's buffer is full");
}

async fn receive(stream: &TcpStream, buffer: &mut [u8]) -> usize {
    loop {
        match stream.try_read(buffer) {
            Ok(0) => panic!("the server closed a connection"),
            Ok(read) => return read,
            // Now it is known that there is nothing yet.
            Err(_) => stream.readable().await.unwrap(),
        }
    }
}

/// Reads a response with a `Content-Length`; tells how long it is as a whole.
async fn whole_response(stream: &TcpStream) -> usize {
    let (mut buffer, mut read) = ([0; 4096], 0);
    loop {
        read += receive(stream, &mut buffer[read..]).await;
        let text = str::from_utf8(&buffer[..read]).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(buffer.starts_with(OK), "{text}");
            let length = head.to_ascii_lowercase();
            let length = length.split_once("content-length: ").unwrap().1;
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() == length {
                return read;
            }
        }
    }
}
