use std::{error::Error as _, time::Duration};

use tower_bearer_session::{Error, ErrorKind, RedisStore, Token};

use super::{
    super::{eventually, everything, is_unavailable},
    manager, sessions_key,
};
use crate::harness::{Cluster, Flavor};

/// A primary without a replica dies, and hangs, in a cluster that then refuses to serve anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_lost_and_the_cluster_is_down() {
    slots_are_lost("yes").await;
}

/// The same in a cluster that goes on serving the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_lost_and_the_others_are_served() {
    slots_are_lost("no").await;
}

async fn slots_are_lost(full_coverage: &str) {
    let args = [
        ["--cluster-require-full-coverage", full_coverage],
        ["--appendonly", "yes"],
        ["--appendfsync", "always"],
    ];
    let cluster = Cluster::start_with(Flavor::Redis, None, &args.concat()).await;
    // Long enough for a busy machine.
    let store = RedisStore::builder(cluster.url()).deadline(Duration::from_secs(3));
    let manager = manager(store.connect().await.unwrap());
    let mut tokens = Vec::new();
    for user in ["al", "bo"] {
        tokens.push(manager.set_token(user, None).await.unwrap());
    }
    let [al, bo] = &tokens[..] else {
        panic!("two users")
    };
    let check = async |token: &Token| {
        let user = manager.check_token(token.expose_secret()).await?;
        Ok::<_, Error>(user.expect("a live session").id().to_owned())
    };
    let primary = cluster.primary_of(&sessions_key("al")).await;
    assert_eq!(primary.port(), cluster.nodes()[0].port());
    cluster.nodes()[3].kill();
    for hung in [false, true] {
        match hung {
            false => primary.kill(),
            true => primary.freeze(),
        }
        // The users of the others are served until it is clear that nobody takes over, or on and on.
        let mut served = 0;
        if full_coverage == "yes" {
            let took = eventually("CLUSTERDOWN", async || match check(bo).await {
                Ok(_) => {
                    served += 1;
                    false
                }
                Err(error) => {
                    assert!(is_unavailable(&error), "{error:?}");
                    assert!(everything(&error).contains("cluster is down"), "{error:?}");
                    true
                }
            })
            .await;
            println!("down after {took:?}, and {served} checks");
        } else {
            eventually("failure", async || is_failed(&cluster).await).await;
            for _ in 0..100 {
                assert_eq!(check(bo).await.unwrap(), "bo");
            }
        }
        for round in 0..10 {
            let error = check(al).await.unwrap_err();
            let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            if round % 9 == 0 {
                println!("{error}: {:?}", error.source().map(ToString::to_string));
            }
        }
        match hung {
            false => primary.restart().await,
            true => primary.thaw(),
        }
        for token in [al, bo] {
            let took = eventually("recovery", async || check(token).await.is_ok()).await;
            println!("recovered after {took:?}");
        }
    }
    cluster.nodes()[3].restart().await;
    cluster.wait_until_whole().await;
    assert_eq!(check(al).await.unwrap(), "al");
}

/// Whether the second primary takes the first one for failed.
async fn is_failed(cluster: &Cluster) -> bool {
    let nodes: String = super::ask(&cluster.nodes()[1], &["CLUSTER", "NODES"]).await;
    let port = format!(":{}@", cluster.nodes()[0].port());
    let mut lines = nodes.lines();
    let first = lines
        .find(|line| line.contains(&port))
        .expect("a known node");
    first.contains("master,fail ")
}
