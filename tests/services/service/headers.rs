use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use proptest::{collection::vec, prelude::*};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{SessionLayer, User};

use super::{Profile, Spy, bearer, logged_in, manager, request};

/// What a required layer answers: the status, and the error code of the challenge.
type Verdict = (u16, Option<&'static str>);

const FINE: Verdict = (200, None);
const MISSING: Verdict = (401, None);
const INVALID: Verdict = (401, Some("invalid_token"));
const MALFORMED: Verdict = (400, Some("invalid_request"));

/// Every way to write the header has its status and its challenge, after RFC 6750 §3.1.
#[tokio::test(start_paused = true)]
async fn every_header_gets_its_verdict() {
    let spy = Spy::default();
    let (live, layers) = logged_in(&spy, "al").await;
    let manager = manager(&spy);
    let other = bearer(&manager.set_token("bo", None).await.unwrap());
    let logged_out = manager.set_token("al", None).await.unwrap();
    manager
        .delete_token(logged_out.expose_secret())
        .await
        .unwrap();
    let expired = manager.set_token("al", Duration::from_secs(1)).await;
    tokio::time::advance(Duration::from_secs(1)).await;

    let text = live.expose_secret();
    let live = bearer(&live);
    let two_schemes = ["Basic eA==".to_owned(), live.clone()];
    let table: Vec<(Vec<Vec<u8>>, Verdict)> = vec![
        (vec![], MISSING),
        (one(""), MISSING),
        (one(" "), MISSING),
        (one("Basic eA=="), MISSING),
        (one(format!("Basic {text}")), MISSING),
        (one(format!("Bearer{text}")), MISSING),
        (one(format!("Bearers {text}")), MISSING),
        (one(format!("Bearer\t{text}")), MISSING),
        (one(text), MISSING),
        (one(&live), FINE),
        (one(format!("bearer {text}")), FINE),
        (one(format!("BEARER {text}")), FINE),
        (one(format!("bEaReR {text}")), FINE),
        // RFC 9110 §11.4: auth-scheme [ 1*SP token68 ]
        (one(format!("Bearer  {text}")), FINE),
        (one(format!("Bearer {text} ")), FINE),
        (one("Bearer"), INVALID),
        (one("Bearer "), INVALID),
        (one("bearer tok"), INVALID),
        (one("BEARER tok"), INVALID),
        (one(format!("Bearer {text} {text}")), INVALID),
        (one(format!("Bearer {text}, Bearer {text}")), INVALID),
        (one(format!("Bearer {text},")), INVALID),
        (one(format!("Bearer \"{text}\"")), INVALID),
        (one(format!("Bearer Bearer {text}")), INVALID),
        (one(live.replace("Bearer tbs1", "Bearer TBS1")), INVALID),
        (one(bearer(&logged_out)), INVALID),
        (one(bearer(&expired.unwrap())), INVALID),
        (one(format!("Bearer tbs1.YWw.{}", "A".repeat(43))), INVALID),
        (one(format!("Bearer {}", "x".repeat(1 << 20))), INVALID),
        (one("x".repeat(1 << 20)), MISSING),
        (one(b"Bearer \xff\xfe"), INVALID),
        (one([live.as_bytes(), b"\xe9"].concat()), INVALID),
        (one("Bearer tök".as_bytes()), INVALID),
        (one(b"\xff"), MISSING),
        (many([&live, &live]), MALFORMED),
        (many([&live, &other]), MALFORMED),
        (many(two_schemes), MALFORMED),
        (many(["", ""]), MALFORMED),
    ];
    for (headers, (status, code)) in table {
        let shown: Vec<_> = headers
            .iter()
            .map(|it| String::from_utf8_lossy(&it[..it.len().min(99)]))
            .collect();
        let answers = judge(&layers, request(&headers)).await;
        assert_eq!(answers[0].0, status, "{shown:?}");
        assert_eq!(answers[0].1.as_deref(), code, "{shown:?}");
        // Optional mode takes what it cannot read for anonymous, but not what is ambiguous.
        let lenient = if status == 400 { 400 } else { 200 };
        assert_eq!(answers[1].0, lenient, "{shown:?}");
        assert_eq!(answers[1].2, status == 200, "{shown:?}");
    }
}

/// RFC 6750 §3: "This scheme MUST be followed by one or more auth-param values."
#[tokio::test]
async fn every_challenge_has_a_parameter() {
    let (token, [layer, _]) = logged_in(&Spy::default(), "al").await;
    let token = bearer(&token);
    for headers in [vec![], vec!["Bearer x"], vec![&token, &token]] {
        let response = answer(&layer, request(&headers)).await;
        let challenge = challenge(&response).expect("a challenge");
        assert!(!challenge.is_empty(), "{headers:?}");
    }
}

proptest! {
    /// Whatever bytes come: no panic, one of three statuses, and no store call but for a real token's form.
    #[test]
    fn arbitrary_headers_are_judged(headers in vec(header(), 0..3)) {
        runtime().block_on(async {
            let spy = Spy::default();
            let manager = manager(&spy);
            let required = SessionLayer::new(manager);
            let layers = [required.clone(), required.optional()];
            let answers = judge(&layers, request(&headers)).await;
            let well_formed = headers.len() == 1 && looks_like_a_token(&headers[0]);
            prop_assert!(spy.calls() == 0 || well_formed);
            // No token is live.
            prop_assert!([400, 401].contains(&answers[0].0));
            prop_assert!([200, 400].contains(&answers[1].0));
            prop_assert!(!answers[0].2 && !answers[1].2);
            Ok(())
        })?;
    }

    /// A live token with one byte changed is not live any more.
    #[test]
    fn a_token_with_another_byte_is_another(at in 0usize..56, byte in 0x21u8..0x7f) {
        runtime().block_on(async {
            let (token, layers) = logged_in(&Spy::default(), "alice").await;
            let mut text = token.expose_secret().to_owned().into_bytes();
            prop_assert_eq!(text.len(), 56);
            let same = text[at] == byte;
            text[at] = byte;
            let header = [b"Bearer ", &text[..]].concat();
            let answers = judge(&layers, request([header])).await;
            prop_assert_eq!(answers[0].0, if same { 200 } else { 401 });
            prop_assert_eq!(answers[1].2, same);
            Ok(())
        })?;
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

fn one(header: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
    many([header])
}

fn many(headers: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Vec<u8>> {
    headers
        .into_iter()
        .map(|header| header.as_ref().to_owned())
        .collect()
}

/// Bytes that may be in a header: arbitrary ones, and ones near a token.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20u8..0x7f, 0x80u8..=0xff];
    let noise = vec(byte, 0..80);
    let scheme = prop_oneof![Just("Bearer "), Just("bearer  "), Just("Bearer"), Just("")];
    let token = "(tbs1\\.)?[A-Za-z0-9_-]{0,8}\\.[A-Za-z0-9_-]{42,44}";
    prop_oneof![
        noise.clone(),
        (scheme.clone(), noise).prop_map(|(scheme, noise)| [scheme.as_bytes(), &noise].concat()),
        (scheme, token).prop_map(|(scheme, token)| (scheme.to_owned() + &token).into_bytes()),
    ]
}

/// A necessary condition for a token, written anew from the specification of its form.
fn looks_like_a_token(header: &[u8]) -> bool {
    let base64url = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    std::str::from_utf8(header).is_ok_and(|header| {
        let Some((scheme, token)) = header.split_once(' ') else {
            return false;
        };
        let parts: Vec<_> = token.trim().split('.').collect();
        scheme.eq_ignore_ascii_case("bearer")
            && parts.len() == 3
            && parts[0] == "tbs1"
            && !parts[1].is_empty()
            && parts[2].len() == 43
            && parts.iter().all(|part| base64url(part))
    })
}

/// What required and optional mode answer: status, error code, and whether there was a user.
async fn judge(
    layers: &[SessionLayer<Profile>; 2],
    request: Request<()>,
) -> [(u16, Option<String>, bool); 2] {
    let mut answers = [(); 2].map(|()| (0, None, false));
    for (layer, result) in layers.iter().zip(&mut answers) {
        let response = answer(layer, request.clone()).await;
        let challenge = challenge(&response);
        let code = challenge.and_then(|mut params| params.remove("error"));
        *result = (response.status().as_u16(), code, *response.body());
    }
    answers
}

/// The answer of the layer on a service that tells whether there is a user.
async fn answer(layer: &SessionLayer<Profile>, request: Request<()>) -> Response<bool> {
    let inner = service_fn(async |request: Request<()>| {
        let user = request.extensions().get::<User<Profile>>();
        Ok::<_, Infallible>(Response::new(user.is_some()))
    });
    layer
        .layer(inner)
        .oneshot(request)
        .await
        .expect("an answer")
}

/// The parameters of the challenge, which a 401 must have; checks what RFC 6750 §3 says of their form.
fn challenge(response: &Response<bool>) -> Option<BTreeMap<String, String>> {
    let mut challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
    let challenge = challenges.next();
    assert!(challenges.next().is_none());
    let Some(challenge) = challenge else {
        assert_ne!(response.status(), StatusCode::UNAUTHORIZED);
        return None;
    };
    let params = challenge.to_str().expect("ASCII");
    let params = params.strip_prefix("Bearer").expect("the scheme Bearer");
    let mut found = BTreeMap::new();
    for param in params.split_terminator(", ") {
        let (name, value) = param.trim_start().split_once('=').expect("an auth-param");
        let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let value = value.expect("a quoted string");
        // "MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E"
        let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        assert!(value.bytes().all(allowed), "{value:?}");
        let again = found.insert(name.to_owned(), value.to_owned());
        assert!(again.is_none(), "`{name}` appears more than once");
    }
    Some(found)
}
