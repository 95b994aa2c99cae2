//! Sentinels that say what a test tells them to.

use std::sync::{Arc, Mutex, PoisonError};

use crate::harness::fake::{FakeServer, Reply, array, bulk, error};

/// A sentinel that watches `mymaster`.
pub(super) struct FakeSentinel {
    pub(super) server: FakeServer,
    view: Arc<Mutex<View>>,
}

/// What it says.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) epoch: u64,
    /// The port of the master.
    pub(super) master: u16,
    /// The run of the master that it saw last, and the time since then in milliseconds.
    pub(super) seen: Option<(&'static str, u64)>,
    /// The state of the failover that it leads.
    pub(super) failover: Option<&'static str>,
    /// Channels that nobody may subscribe to.
    pub(super) denied: &'static [&'static str],
}

impl FakeSentinel {
    pub(super) async fn start(view: View) -> Self {
        let server = FakeServer::start().await;
        let view = Arc::new(Mutex::new(view));
        let said = Arc::clone(&view);
        server.answer(move |words| lock(&said).answer(words));
        Self { server, view }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut lock(&self.view));
    }

    /// How often it was asked for the master.
    pub(super) fn asked(&self) -> usize {
        self.server.calls("SENTINEL GET-MASTER-ADDR-BY-NAME")
    }
}

impl View {
    fn answer(&self, words: &[&str]) -> Reply {
        let port = self.master.to_string();
        match words {
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"] => {
                Some(array(["127.0.0.1", &port].map(bulk)))
            }
            ["SENTINEL", "MASTER", "mymaster"] => {
                let epoch = self.epoch.to_string();
                let (run, ago) = self.seen.unwrap_or_default();
                let ago = ago.to_string();
                let mut fields = vec!["ip", "127.0.0.1", "port", &port, "config-epoch", &epoch];
                fields.extend(["runid", run, "info-refresh", &ago]);
                if let Some(state) = self.failover {
                    fields.extend(["failover-state", state]);
                }
                Some(array(fields.into_iter().map(bulk)))
            }
            ["SUBSCRIBE", channels @ ..]
                if channels.iter().any(|channel| self.denied.contains(channel)) =>
            {
                Some(error(
                    "NOPERM this user has no permissions to access a channel",
                ))
            }
            _ => None,
        }
    }
}

/// The URL of a store that asks these sentinels.
pub(super) fn url(sentinels: &[FakeSentinel]) -> String {
    let addresses = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.server.port()));
    let addresses = addresses.collect::<Vec<_>>().join("&node=");
    let url = format!("redis-sentinel://{addresses}").replacen('&', "?", 1);
    let next = if url.contains('?') { '&' } else { '?' };
    format!("{url}{next}sentinelServiceName=mymaster")
}

fn lock(view: &Mutex<View>) -> std::sync::MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
