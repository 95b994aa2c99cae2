//! URLs of Redis: one server, Sentinel, Cluster.
//!
//! - No error, and no `Debug` of the builder, shows a password. In the seeds it is `hunter2`.
//! - A URL that is accepted means what it says: TLS by its scheme, and no parameter twice.
//! - What is read from a URL, written in another spelling, reads the same.
//! - The host is one that an address may have, so that errors can show it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tower_bearer_session::{
    ErrorKind, RedisStore, RedisTopology,
    fuzzing::redis::{RedisUrl, address},
};
use tower_bearer_session_fuzz::shown;

const SECRET: &str = "hunter2";

fuzz_target!(|text: &str| {
    let debug = format!("{:?}", RedisStore::builder(text));
    assert!(!debug.contains(SECRET), "{debug}");
    let url = match RedisUrl::parse(text) {
        Ok(url) => url,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            let shown = shown(&error);
            assert!(!shown.contains(SECRET), "{shown}");
            assert!(!shown.contains(char::is_control), "{shown:?}");
            return;
        }
    };
    check(text, &url);
    let canonical = canonical(&url);
    assert_eq!(
        RedisUrl::parse(&canonical).as_ref().ok(),
        Some(&url),
        "{canonical}"
    );
});

fn check(text: &str, url: &RedisUrl) {
    // The URL standard drops these wherever they are, and spaces at both ends.
    let text: String = text
        .chars()
        .filter(|char| !"\t\n\r".contains(*char))
        .collect();
    let text = text.trim_matches(|char| char <= ' ');
    let (scheme, rest) = text.split_once("://").expect("a scheme");
    let scheme = scheme.to_ascii_lowercase();
    let (server, topology) = match scheme.split_once('-') {
        None => (&*scheme, RedisTopology::Standalone),
        Some((server, "sentinel")) => (server, RedisTopology::Sentinel),
        Some((server, other)) => {
            assert_eq!(other, "cluster");
            (server, RedisTopology::Cluster)
        }
    };
    assert!(["redis", "rediss", "valkey", "valkeys"].contains(&server));
    assert_eq!(url.tls, server.ends_with("ss") || server == "valkeys");
    assert_eq!(url.topology, topology);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let password = authority
        .rsplit_once('@')
        .and_then(|(user, _)| Some(user.split_once(':')?.1));
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .expect("UTF-8")
            .into_owned()
    };
    let password = password.map(decode).unwrap_or_default();
    assert_eq!(url.password.clone().unwrap_or_default(), password);

    assert!(!rest.contains('#'));
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let parameters: Vec<_> = query.split('&').filter(|one| !one.is_empty()).collect();
    let names = parameters
        .iter()
        .map(|one| one.split('=').next().unwrap_or_default());
    let mut names: Vec<_> = names.filter(|name| *name != "node").collect();
    assert_eq!(parameters.len() - names.len() + 1, url.nodes.len());
    names.sort_unstable();
    assert!(
        names.windows(2).all(|two| two[0] != two[1]),
        "a parameter is there twice: {names:?}"
    );
    assert_eq!(topology == RedisTopology::Sentinel, !url.service.is_empty());
    let tls = parameters
        .iter()
        .find_map(|one| one.strip_prefix("sentinelTls="));
    assert_eq!(url.sentinel_tls.map(|tls| tls.to_string()), tls.map(decode));

    for (host, port) in &url.nodes {
        let host_and_port = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let (read, port_read, shown) = address(&host_and_port, 0).expect("an address");
        assert_eq!((&read, port_read, &shown), (host, *port, &host_and_port));
    }
}

/// The URL with every part in full and percent-encoded.
fn canonical(url: &RedisUrl) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut text = String::from(if url.tls { "valkeys" } else { "redis" });
    text.push_str(match url.topology {
        RedisTopology::Sentinel => "-sentinel",
        RedisTopology::Cluster => "-cluster",
        _ => "",
    });
    text.push_str("://");
    text.push_str(&encode(url.username.as_deref().unwrap_or_default()));
    if let Some(password) = &url.password {
        text.push_str(&format!(":{}", encode(password)));
    }
    let node = |(host, port): &(String, u16)| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{}:{port}", encode(host)),
    };
    if url.username.is_some() || url.password.is_some() {
        text.push('@');
    }
    text.push_str(&format!("{}/{}?", node(&url.nodes[0]), url.db));
    for node in &url.nodes[1..] {
        let (host, port) = node;
        let node = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        text.push_str(&format!("node={}&", encode(&node)));
    }
    let parameters = [
        (
            "sentinelServiceName",
            Some(url.service.clone()).filter(|name| !name.is_empty()),
        ),
        ("sentinelUsername", url.sentinel_username.clone()),
        ("sentinelPassword", url.sentinel_password.clone()),
        ("sentinelTls", url.sentinel_tls.map(|tls| tls.to_string())),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            text.push_str(&format!("{name}={}&", encode(&value)));
        }
    }
    text
}
