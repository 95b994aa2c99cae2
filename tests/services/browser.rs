//! A headless Chromium, driven over its DevTools protocol.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    thread,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::oneshot};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::examples::command;

/// A browser with one page; killed on drop.
pub(crate) struct Browser {
    process: Child,
    devtools: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    page: Value,
    /// What came while a call waited for its answer, since the last page was loaded.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page.
    pub(crate) async fn open(url: &str) -> Self {
        let program = Path::new("/usr/bin/chromium");
        assert!(
            program.exists(),
            "this test needs {}, which is missing: `tests/run` installs it",
            program.display()
        );
        let profile = TempDir::new().unwrap();
        let mut process = command(program)
            // As root it cannot have a sandbox, and in a container little shared memory.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args(["--no-first-run", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (found, address) = oneshot::channel();
        let log = BufReader::new(process.stderr.take().unwrap());
        // Reads on to the end, so that the browser never waits for somebody who reads.
        thread::spawn(move || {
            let (mut found, mut seen) = (Some(found), String::new());
            for line in log.lines().map_while(Result::ok) {
                match line.strip_prefix("DevTools listening on ") {
                    Some(address) => {
                        let _ = found.take().map(|found| found.send(Ok(address.to_owned())));
                    }
                    None => seen += &(line + "\n"),
                }
            }
            let _ = found.take().map(|found| found.send(Err(seen)));
        });
        let address = address.await.unwrap().expect("a browser that starts");
        let (devtools, _) = connect_async(address).await.unwrap();
        let mut browser = Self {
            process,
            devtools,
            calls: 0,
            page: Value::Null,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", target).await;
        browser.page = attached["sessionId"].clone();
        browser.call("Page.enable", json!({})).await;
        let events = json!({"enabled": true});
        browser.call("Page.setLifecycleEventsEnabled", events).await;
        browser.go(url).await;
        browser
    }

    /// Goes to a page, also anew to the one that is open; returns when it has loaded.
    pub(crate) async fn go(&mut self, url: &str) {
        // The answer comes before the new document replaces the old one: scripts would still run in the old one.
        let document = self.call("Page.navigate", json!({"url": url})).await["loaderId"].take();
        let is_loaded = |event: &Value| {
            event["method"] == "Page.lifecycleEvent"
                && event["params"]["name"] == "load"
                && event["params"]["loaderId"] == document
        };
        while !self.events.drain(..).any(|event| is_loaded(&event)) {
            let event = self.receive().await;
            self.events.push(event);
        }
    }

    /// Runs the body of an async function in the page; returns the text that it returns.
    pub(crate) async fn run(&mut self, body: &str) -> String {
        let expression = format!("(async () => {{ {body} }})()");
        let evaluate = json!({"expression": expression, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", evaluate).await;
        match answer["result"]["value"].take() {
            Value::String(text) => text,
            _ => panic!("{answer:#}"),
        }
    }

    /// The cookies that the browser would send to a URL, with their attributes.
    pub(crate) async fn cookies(&mut self, url: &str) -> Vec<Value> {
        let mut answer = self
            .call("Network.getCookies", json!({"urls": [url]}))
            .await;
        match answer["cookies"].take() {
            Value::Array(cookies) => cookies,
            _ => panic!("{answer:#}"),
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if !self.page.is_null() {
            call["sessionId"] = self.page.clone();
        }
        let call = Message::text(call.to_string());
        self.devtools.send(call).await.unwrap();
        loop {
            let mut message = self.receive().await;
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    async fn receive(&mut self) -> Value {
        let message = self.devtools.next().await.unwrap().unwrap();
        serde_json::from_slice(&message.into_data()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
