use proptest::test_runner::{Config, TestRunner};
use tokio::{runtime::Handle, task::block_in_place};

use super::{super::patient_store, Manager, ask, everything_works, manager};
use crate::{
    harness::{Cluster, Flavor},
    stores::HOUR,
};

/// Whatever a user's id is, all keys of the user are in one slot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_in_one_slot() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let manager = manager(patient_store(&cluster.url()).await);
    let ids = ids();
    for id in &ids {
        everything_works(&manager, id).await;
        leave_keys(&manager, id).await;
    }
    assert_eq!(pairs(&cluster).await, ids.len());
}

/// The same for ids that nobody thought of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_user_is_in_one_slot() {
    let cluster = Cluster::start(Flavor::Redis).await;
    let manager = manager(patient_store(&cluster.url()).await);
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let ids = proptest::prop_oneof!["[{}%7BD:a *漢🦀]{1,10}", "\\PC{1,60}", "(?s).{1,60}"];
    let outcome = block_in_place(|| {
        TestRunner::new(config).run(&ids, |id| {
            Handle::current().block_on(async {
                everything_works(&manager, &id).await;
                leave_keys(&manager, &id).await;
            });
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    println!("{} different ids", pairs(&cluster).await);
}

async fn leave_keys(manager: &Manager, id: &str) {
    manager.set_token(id, None).await.unwrap();
    manager.add_user(id, HOUR).await.unwrap();
}

/// How many users there are; a command about both keys of a user is refused if they are not in one slot.
async fn pairs(cluster: &Cluster) -> usize {
    let mut count = 0;
    for primary in &cluster.nodes()[..3] {
        let users: Vec<String> = ask(primary, &["KEYS", "tbs:users:*"]).await;
        for user in &users {
            let sessions = user.replacen("users", "tokens", 1);
            let keys: u64 = ask(primary, &["EXISTS", user, &sessions]).await;
            assert_eq!(keys, 2, "{user:?}");
        }
        count += users.len();
    }
    count
}

fn ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "al",
        " ",
        "a b",
        "{",
        "}",
        "{}",
        "}{",
        "{}{}",
        "{a}",
        "}{a}",
        "{}a",
        "a{",
        "a}",
        "a{b}c{d}e",
        "{{a}}",
        "%",
        "%7B",
        "%7D",
        "%25",
        "%7Ba%7D",
        "100%",
        "\0",
        "\r\n",
        "tbs:tokens:{a}",
        "*",
        "\\",
        "\"",
        "漢字",
        "{漢}",
        "}漢{",
        "🦀",
        "👩‍👩‍👧",
        "\u{202E}a",
        "\u{FEFF}",
    ]
    .map(str::to_owned)
    .into();
    ids.extend(["x", "{", "}", "%"].map(|it| it.repeat(255)));
    ids.push("漢".repeat(85));
    ids
}
