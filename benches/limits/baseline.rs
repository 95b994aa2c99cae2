//! A check as a service could write it itself, with no more than the three commands.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, ProtocolVersion, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    load::Laps,
    system_under_test::{self, Profile, SystemUnderTest, USER},
};

type Reply = Option<Vec<u8>>;

/// Time, session and user.
pub(crate) type Answer = ((u64, u64), Reply, Reply);

pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let info = url.into_connection_info().unwrap();
    let redis = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    let info = info
        .set_redis_settings(redis)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = Client::open(info).unwrap();
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    connecting.await.unwrap()
}

/// The names of a user's two keys.
pub(crate) fn keys(user_id: &str) -> [String; 2] {
    [
        format!("tbs:tokens:{{{user_id}}}"),
        format!("tbs:users:{{{user_id}}}"),
    ]
}

pub(crate) async fn ask(
    connection: &mut MultiplexedConnection,
    [sessions, user]: &[String; 2],
    token_id: &str,
) -> Answer {
    let mut commands = redis::Pipeline::with_capacity(3);
    commands.cmd("TIME").hget(sessions, token_id).get(user);
    commands.query_async(connection).await.unwrap()
}

/// Does again and again what [`SystemUnderTest::checks`] does.
pub(crate) fn checks(
    connection: &MultiplexedConnection,
    subject: &SystemUnderTest,
    mut laps: Laps,
) -> impl Future<Output = Laps> + use<> {
    let (mut connection, token_id) = (connection.clone(), subject.token_id.clone());
    let keys = keys(USER);
    async move {
        while laps.next() {
            let (_, session, user) = ask(&mut connection, &keys, &token_id).await;
            assert!(session.is_some() && user.is_some());
        }
        laps
    }
}

/// Does again and again what [`SystemUnderTest::check`] does, for one user after the other.
pub(crate) fn checks_in_turn(
    connection: &MultiplexedConnection,
    users: &Arc<[SystemUnderTest]>,
    mut laps: Laps,
) -> impl Future<Output = Laps> + use<> {
    let (mut connection, users) = (connection.clone(), Arc::clone(users));
    async move {
        let mut turns = system_under_test::in_turn(&users);
        while laps.next() {
            let user = turns.next().unwrap();
            let keys = keys(&user.user_id);
            let (_, session, cached) = ask(&mut connection, &keys, &user.token_id).await;
            assert!(session.is_some() && cached.is_some());
        }
        laps
    }
}

/// The cached value of a user.
#[derive(Deserialize)]
struct Cached {
    id: String,
    detail: Profile,
}

/// Lets requests with a live token through, and puts the profile of the user into their extensions.
pub(crate) async fn middleware(
    State(connection): State<MultiplexedConnection>,
    mut request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let header = request.headers().get(AUTHORIZATION).cloned();
    let profile = judge(connection, header.as_ref()).await;
    let profile = profile.ok_or(StatusCode::UNAUTHORIZED)?;
    request.extensions_mut().insert(Arc::new(profile));
    Ok(next.run(request).await)
}

async fn judge(
    mut connection: MultiplexedConnection,
    header: Option<&HeaderValue>,
) -> Option<Profile> {
    let token = header?.to_str().ok()?.strip_prefix("Bearer ")?;
    let (user_id, _) = token.strip_prefix("tbs1.")?.split_once('.')?;
    let user_id = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(user_id).ok()?).ok()?;
    let token_id = BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(token)[..16]);
    let ((seconds, micros), session, user) = ask(&mut connection, &keys(&user_id), &token_id).await;
    let now = seconds * 1000 + micros / 1000;
    let expiry = session.as_ref()?.first_chunk::<6>()?;
    let expiry = expiry
        .iter()
        .fold(0, |millis, byte| millis << 8 | u64::from(*byte));
    let cached: Cached = serde_json::from_slice(&user?).ok()?;
    (now < expiry && cached.id == user_id).then_some(cached.detail)
}
