//! What only a MySQL store can show: its tables, its statements, and how it gets to its server.

mod cancelled;
mod clock;
mod connections;
mod crashes;
mod denied_logins;
mod failed_connects;
mod late_writes;
mod load_shedding;
mod locks;
mod lost_replies;
mod many_sessions;
mod max_connections;
mod migrations;
mod misconfigured;
mod missing;
mod operations;
mod purge;
mod refused_writes;
mod round_trips;
mod secrets;
mod user_ids;

use std::time::Duration;

use tokio::time::sleep;

pub(crate) use self::many_sessions::fill;
use crate::{eventually, everything, harness::MariaDb};

/// The tables of a store, without their prefix.
const TABLES: [&str; 5] = ["schema", "sessions", "cutoffs", "users", "slots"];

/// How many transactions have changed at least so many rows and are not committed.
async fn uncommitted(mysql: &MariaDb, rows: i64) -> i64 {
    // Who asks more often gets old answers.
    sleep(Duration::from_millis(150)).await;
    mysql
        .number(&format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_rows_modified >= {rows}"
        ))
        .await
}
