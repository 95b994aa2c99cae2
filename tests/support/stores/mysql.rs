//! [`MySqlStore`] on MariaDB.

use tower_bearer_session::{MySqlStore, MySqlStoreBuilder, test_util};

use super::{
    Backend, LONG_TIMEOUT,
    remote::{Running, Share},
};
use test_harness::MariaDb;

/// Tables of its own on a server.
pub struct MySql(Share<MariaDb>);

impl MySql {
    /// Tables that are not there yet.
    pub async fn without_tables() -> Self {
        static RUNNING: Running<MariaDb> = Running::none();
        Self(RUNNING.share(MariaDb::start()).await)
    }

    pub fn server(&self) -> &MariaDb {
        &self.0.servers
    }

    /// The name of one of the tables.
    pub fn table(&self, name: &str) -> String {
        format!("{}_{name}", self.0.prefix)
    }

    /// A store of these tables that gives up late.
    pub fn builder(&self) -> MySqlStoreBuilder {
        MySqlStore::builder(self.server().url())
            .table_prefix(format!("{}_", self.0.prefix))
            .connect_timeout(LONG_TIMEOUT)
            .deadline(LONG_TIMEOUT)
    }
}

impl Backend for MySql {
    async fn start() -> Self {
        let tables = Self::without_tables().await;
        let store = tables.builder().connect().await.unwrap();
        store.migrate().await.unwrap();
        tables
    }
}

impl test_util::Backend for MySql {
    type Store = MySqlStore;

    async fn store(&self) -> MySqlStore {
        self.builder().connect().await.unwrap()
    }
}
