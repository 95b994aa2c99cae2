//! URLs of MySQL.
//!
//! - No error, and no `Debug` of the builder, shows a password. In the seeds it is `hunter2`.
//! - A URL that is accepted means what it says: TLS if and only if it asks for TLS, and no parameter twice.
//! - What is read from a URL, written in another spelling, reads the same.
//! - The host has no character that no host has, so that errors can show it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tower_bearer_session::{ErrorKind, MySqlStore, fuzzing::mysql::MySqlUrl};
use tower_bearer_session_fuzz::shown;

const SECRET: &str = "hunter2";

fuzz_target!(|text: &str| {
    let debug = format!("{:?}", MySqlStore::builder(text));
    assert!(!debug.contains(SECRET), "{debug}");
    let url = match MySqlUrl::parse(text) {
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
        MySqlUrl::parse(&canonical).as_ref().ok(),
        Some(&url),
        "{canonical}"
    );
});

fn check(text: &str, url: &MySqlUrl) {
    // The URL standard drops these wherever they are, and spaces at both ends.
    let text: String = text
        .chars()
        .filter(|char| !"\t\n\r".contains(*char))
        .collect();
    let text = text.trim_matches(|char| char <= ' ');
    let (scheme, rest) = text.split_once("://").expect("a scheme");
    assert!(["mysql", "mariadb"].contains(&&*scheme.to_ascii_lowercase()));
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
    assert!(
        parameters.len() <= 1,
        "a parameter is there twice: {parameters:?}"
    );
    assert_eq!(url.tls, parameters == ["ssl-mode=VERIFY_IDENTITY"]);

    assert!(!url.database.is_empty() && !url.database.contains('/'));
    let is_of_host = |byte: u8| byte.is_ascii_graphic() && !b"@/?#[]".contains(&byte);
    assert!(
        !url.host.is_empty() && url.host.bytes().all(is_of_host),
        "{:?}",
        url.host
    );
}

/// The URL with every part in full and percent-encoded.
fn canonical(url: &MySqlUrl) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let username = encode(url.username.as_deref().unwrap_or_default());
    let password = url
        .password
        .as_deref()
        .map(|password| format!(":{}", encode(password)));
    let at = if url.username.is_some() || url.password.is_some() {
        "@"
    } else {
        ""
    };
    let host = match url.host.contains(':') {
        true => format!("[{}]", url.host),
        false => encode(&url.host),
    };
    let mode = if url.tls {
        "VERIFY_IDENTITY"
    } else {
        "DISABLED"
    };
    format!(
        "mariadb://{username}{}{at}{host}:{}/{}?ssl-mode={mode}",
        password.unwrap_or_default(),
        url.port,
        encode(&url.database)
    )
}
