//! Sessions in any number, as copies of one that the crate itself has made.
//!
//! Nothing here knows what a record looks like.

use redis::{Script, aio::MultiplexedConnection};
use tower_bearer_session::{MemoryStore, Token, TokenManager};

use super::baseline::keys;

/// So many at once that a script is worth its call, and so few that the client does not wait long.
const CHUNK: usize = 10_000;
const MILLIS_LEFT: u64 = 7 * 24 * 3600 * 1000;

/// KEYS: hash. ARGV: first and last number, record, ttl. A field is 22 characters of base64url, like any token id.
const SESSIONS: &str = "
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  redis.call('HSET', KEYS[1], string.format('%021dA', n), ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
";

/// ARGV: first and last number, record, ttl.
const USERS: &str = "
local field = string.rep('A', 22)
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local key = 'tbs:tokens:{user-' .. n .. '}'
  redis.call('HSET', key, field, ARGV[3])
  redis.call('PEXPIRE', key, ARGV[4])
end
";

/// The record of a live session.
pub(crate) async fn record(
    connection: &mut MultiplexedConnection,
    user_id: &str,
    token: &Token,
) -> Vec<u8> {
    let [sessions, _] = keys(user_id);
    let mut command = redis::cmd("HGET");
    command.arg(sessions).arg(token.id().to_string());
    let record: Option<Vec<u8>> = command.query_async(connection).await.unwrap();
    record.expect("a record of the session")
}

/// Adds so many sessions to those of a user.
pub(crate) async fn sessions(
    connection: &mut MultiplexedConnection,
    user_id: &str,
    record: &[u8],
    count: usize,
) {
    let [key, _] = keys(user_id);
    let script = Script::new(SESSIONS);
    for (first, last) in chunks(count) {
        let mut call = script.key(&key);
        call.arg(first).arg(last).arg(record).arg(MILLIS_LEFT);
        let () = call.invoke_async(connection).await.unwrap();
    }
}

/// Makes `user-1` and so on, with one session each; returns the tokens of some of them, who are spread evenly.
pub(crate) async fn users(
    connection: &mut MultiplexedConnection,
    record: &[u8],
    count: usize,
    known: usize,
) -> Vec<(String, Token)> {
    let script = Script::new(USERS);
    for (first, last) in chunks(count) {
        let mut call = script.prepare_invoke();
        call.arg(first).arg(last).arg(record).arg(MILLIS_LEFT);
        let () = call.invoke_async(connection).await.unwrap();
    }
    // Any manager mints tokens, and any store takes what has their id.
    let mint: TokenManager = TokenManager::new(MemoryStore::new());
    let mut tokens = Vec::new();
    let mut replace = redis::Pipeline::new();
    for number in (1..=count).step_by(count / known) {
        let user_id = format!("user-{number}");
        let token = mint.set_token(&user_id, None).await.unwrap();
        let [key, _] = keys(&user_id);
        let id = token.id().to_string();
        replace.del(&key).ignore().hset(&key, id, record).ignore();
        replace.pexpire(&key, MILLIS_LEFT as i64).ignore();
        tokens.push((user_id, token));
    }
    let () = replace.query_async(connection).await.unwrap();
    tokens
}

fn chunks(count: usize) -> impl Iterator<Item = (usize, usize)> {
    let chunk = move |first: usize| (first, (first + CHUNK - 1).min(count));
    (1..=count).step_by(CHUNK).map(chunk)
}
