//! The examples run, and do what they print.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Flavor, MariaDb, RedisServer};

/// The whole tour of the quickstart, with two devices.
#[tokio::test]
async fn quickstart() {
    let example = Example::start("quickstart", &[]);
    let base = &example.bases[0];
    let client = Client::new();
    let log_in = async |device: &str| {
        let body = json!({ "user": "alice", "password": "wonderland", "device": device });
        let login = client.post(format!("{base}/login")).json(&body).send();
        login.await.unwrap().text().await.unwrap()
    };
    let (laptop, phone) = (log_in("laptop").await, log_in("phone").await);

    let me = get(&client, &format!("{base}/me"), &laptop).await;
    let me: Value = me.json().await.unwrap();
    assert_eq!(
        (&me["id"], &me["name"]),
        (&json!("alice"), &json!("Alice Liddell"))
    );

    let sessions = get(&client, &format!("{base}/sessions"), &laptop).await;
    let sessions: Value = sessions.json().await.unwrap();
    assert_eq!(sessions["this"], sessions["all"][0]["id"]);
    assert_eq!(sessions["all"][0]["metadata"]["device"], "laptop");
    assert_eq!(sessions["all"][1]["metadata"]["device"], "phone");

    let id = sessions["all"][1]["id"].as_str().unwrap();
    let url = format!("{base}/sessions/{id}");
    let revoked = client
        .delete(url)
        .bearer_auth(&laptop)
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    let refused = get(&client, &format!("{base}/me"), &phone).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);

    let tablet = log_in("tablet").await;
    let url = format!("{base}/logout");
    let bye = client.post(url).bearer_auth(&laptop).send().await.unwrap();
    assert_eq!(bye.text().await.unwrap(), "bye\n");
    let url = format!("{base}/sessions");
    let all = client
        .delete(url)
        .bearer_auth(&tablet)
        .send()
        .await
        .unwrap();
    assert_eq!(all.text().await.unwrap(), "1 sessions ended\n");
    let refused = get(&client, &format!("{base}/me"), &tablet).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// A login at one instance counts at the other, and so does a logout.
#[tokio::test]
async fn redis() {
    let server = RedisServer::start(Flavor::Redis).await;
    two_instances("redis", ("REDIS_URL", &server.url()), "you are alice\n").await;
}

/// The same over MySQL.
#[tokio::test]
async fn mysql() {
    let server = MariaDb::start().await;
    two_instances(
        "mysql",
        ("MYSQL_URL", &server.url()),
        "you are alice, Alice Liddell\n",
    )
    .await;
}

/// A service without a store knows who is logged in by the published keys, and not who has logged out.
#[tokio::test]
async fn jwt() {
    let example = Example::start("jwt", &[]);
    let [login, gateway] = &example.bases[..] else {
        panic!("the example prints two addresses");
    };
    let client = Client::new();
    let token = client.post(format!("{login}/login/alice")).send().await;
    let token = token.unwrap().text().await.unwrap();
    let me = async |base: &str| {
        let me = get(&client, &format!("{base}/me"), &token).await;
        (me.status().as_u16(), me.text().await.unwrap())
    };
    let alice = (200, "you are alice\n".to_owned());
    assert_eq!(me(login).await, alice);
    assert_eq!(me(gateway).await, alice);
    let guest = client.post(format!("{login}/login/guest")).send().await;
    let guest = guest.unwrap().text().await.unwrap();
    for (token, expected) in [(&token, (200, "ordered for acme\n")), (&guest, (403, ""))] {
        let order = client.post(format!("{gateway}/orders")).bearer_auth(token);
        let answer = order.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!((status, &*answer.text().await.unwrap()), expected);
    }
    let bye = client.post(format!("{login}/logout")).bearer_auth(&token);
    assert_eq!(bye.send().await.unwrap().status(), 200);
    assert_eq!(me(login).await.0, 401);
    assert_eq!(me(gateway).await, alice);
    assert_eq!(
        get(&client, &format!("{gateway}/me"), "x").await.status(),
        401
    );
    let keys = client.get(format!("{login}/.well-known/jwks.json")).send();
    let keys: serde_json::Value = keys.await.unwrap().json().await.unwrap();
    assert_eq!(keys["keys"][0]["kid"], "2026-11");
}

async fn two_instances(example: &str, url: (&str, &str), greeting: &str) {
    let example = Example::start(example, &[url]);
    let [one, two] = &example.bases[..] else {
        panic!("the example prints two addresses");
    };
    let client = Client::new();
    let token = client
        .post(format!("{one}/login/alice"))
        .send()
        .await
        .unwrap();
    let token = token.text().await.unwrap();
    let me = get(&client, &format!("{two}/me"), &token).await;
    assert_eq!(me.text().await.unwrap(), greeting);
    let bye = client
        .post(format!("{two}/logout"))
        .bearer_auth(&token)
        .send();
    assert_eq!(bye.await.unwrap().status(), StatusCode::OK);
    let refused = get(&client, &format!("{one}/me"), &token).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

/// The token that is printed opens the service.
#[tokio::test]
async fn hyper() {
    let example = Example::start("hyper", &[]);
    let token = example
        .printed
        .split(['\'', ' '])
        .find(|word| word.starts_with("tbs1."));
    let hello = get(&Client::new(), &example.bases[0], token.unwrap()).await;
    assert_eq!(hello.text().await.unwrap(), "hello alice\n");
}

async fn get(client: &Client, url: &str, token: &str) -> reqwest::Response {
    client.get(url).bearer_auth(token).send().await.unwrap()
}

/// A running example, killed on drop.
pub(crate) struct Example {
    child: Child,
    pub(crate) printed: String,
    /// The addresses that it printed, each once, in that order.
    pub(crate) bases: Vec<String>,
}

impl Example {
    /// Starts an example, and reads until it has printed the last curl line.
    pub(crate) fn start(name: &str, env: &[(&str, &str)]) -> Self {
        static EXECUTABLES: LazyLock<BTreeMap<String, PathBuf>> = LazyLock::new(build);
        let mut child = command(&EXECUTABLES[name])
            .env("PORT", "0")
            .envs(env.iter().copied())
            .spawn()
            .unwrap();
        let mut printed = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !(printed.contains("curl") && printed.ends_with("\n\n") || printed.contains("tbs1."))
        {
            let line = lines.next().expect("the example ended early").unwrap();
            printed.push_str(&line);
            printed.push('\n');
        }
        let mut bases = Vec::new();
        for part in printed.split([' ', '/', ';', ',', '\n']) {
            let base = format!("http://{part}");
            if part.starts_with("127.0.0.1:") && !bases.contains(&base) {
                bases.push(base);
            }
        }
        Self {
            child,
            printed,
            bases,
        }
    }
}

/// The executables of all examples, by name, built from the sources as they are now.
///
/// `tests/run` has built them before, by the same command.
fn build() -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--workspace",
            "--all-features",
            "--bins",
            "--examples",
        ])
        .arg("--message-format=json")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // Build scripts would run again because of what cargo tells these tests about their own package.
    for (name, _) in env::vars_os() {
        let own = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name
            .to_str()
            .is_some_and(|name| own.iter().any(|own| name.starts_with(own)))
        {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{cargo:?} failed: {stderr}");
    let messages = output.stdout.split(|&byte| byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let executables = messages.filter_map(|message| {
        let executable = message["executable"].as_str()?;
        Some((
            message["target"]["name"].as_str()?.to_owned(),
            executable.into(),
        ))
    });
    executables.collect()
}

/// A program that does not outlive this thread.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .stdout(Stdio::piped());
    command
}

impl Drop for Example {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
