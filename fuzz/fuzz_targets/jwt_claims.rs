//! Signed JWTs with any header and claims.
//!
//! The first byte selects a key and the rules; then come the header, a line feed, and the claims; both are signed.
//!
//! - A token is accepted if and only if header and claims obey the rules, as this file states them once more. The
//!   verifier, which returns all claims, also refuses those that it cannot represent.
//! - The claims that services see are those that were signed.
//! - With one bit of its text changed, or with its signature cut, no accepted token is accepted.
//! - `Debug` of claims shows no claim but the documented ones.

#![no_main]

use std::{
    collections::HashSet,
    fmt,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use libfuzzer_sys::fuzz_target;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use tower_bearer_session::{
    TokenManager,
    jwt::{JwtConfig, JwtVerifier},
};
use tower_bearer_session_fuzz::{
    AlwaysLive, block_on, decode_base64url,
    jwt::{ALGORITHMS, base64url, sign, verifying_keys},
};

/// How far a time must be from now, so that the moment of the check does not matter.
const MARGIN: f64 = 600.0;

struct Rules {
    issuer: Option<&'static str>,
    audience: Option<&'static str>,
    access_tokens: bool,
    verifier: JwtVerifier,
    manager: TokenManager,
}

impl Rules {
    fn new(issuer: Option<&'static str>, audience: Option<&'static str>, access: bool) -> Self {
        let mut verifier = JwtVerifier::builder(verifying_keys());
        let mut config = JwtConfig::verify_only(verifying_keys());
        if let Some(issuer) = issuer {
            (verifier, config) = (verifier.issuer(issuer), config.issuer(issuer));
        }
        if let Some(audience) = audience {
            (verifier, config) = (verifier.audience(audience), config.audience(audience));
        }
        if access {
            (verifier, config) = (verifier.access_tokens(), config.access_tokens("client"));
        }
        Self {
            issuer,
            audience,
            access_tokens: access,
            verifier: verifier.build().expect("a verifier"),
            manager: TokenManager::builder(AlwaysLive)
                .jwt(config)
                .build()
                .expect("a manager"),
        }
    }
}

static RULES: LazyLock<[Rules; 4]> = LazyLock::new(|| {
    [
        Rules::new(None, None, false),
        Rules::new(Some("login"), None, false),
        Rules::new(None, Some("shop"), false),
        Rules::new(Some("login"), Some("shop"), true),
    ]
});

/// The members of a JSON object, repeated names included.
///
/// Values are read only if they decide: the others need not be ones that this program can represent.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Members {
    /// Reads an object in UTF-8 that has none of these names twice.
    fn read(json: &[u8], names: &[&str]) -> Option<Self> {
        let members: Self = serde_json::from_str(str::from_utf8(json).ok()?).ok()?;
        let mut seen = HashSet::new();
        let mut read = members
            .0
            .iter()
            .filter(|(name, _)| names.contains(&&**name));
        let is_valid = read.all(|(name, value)| {
            seen.insert(name) && serde_json::from_str::<Value>(value.get()).is_ok()
        });
        is_valid.then_some(members)
    }

    /// A member; `null` is as good as none.
    fn get(&self, name: &str) -> Option<Value> {
        let member = self.0.iter().find(|(other, _)| other == name);
        let value = serde_json::from_str(member?.1.get()).ok();
        value.filter(|value: &Value| !value.is_null())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// A member of a type, if it is there; `None` if it is of another type.
    fn typed<T>(&self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
        self.get(name)
            .map_or(Some(None), |value| read(&value).map(Some))
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn audience(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(text).collect(),
        _ => None,
    }
}

struct Expected {
    user_id: String,
    issuer: Option<String>,
    audience: Vec<String>,
    jti: Option<String>,
}

/// What a verifier with these rules must find in a token; `None` if it must refuse it.
fn expected(rules: &Rules, algorithm: usize, header: &[u8], claims: &[u8]) -> Option<Expected> {
    let header = Members::read(header, &["alg", "kid", "typ", "crit"])?;
    let alg = text(&header.get("alg")?)?;
    let alg = if alg == "Ed25519" { "EdDSA" } else { &*alg };
    if alg != ALGORITHMS[algorithm] || header.get("kid")?.as_str()? != ALGORITHMS[algorithm] {
        return None;
    }
    let typ = header
        .typed("typ", text)?
        .map(|typ| typ.to_ascii_lowercase());
    let typ = typ
        .as_deref()
        .map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
    let typ_is_right = match rules.access_tokens {
        true => typ == Some("at+jwt"),
        false => matches!(typ, None | Some("jwt")),
    };
    if !typ_is_right || header.has("crit") {
        return None;
    }

    let names = [
        "sub",
        "iss",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "sid",
        "client_id",
        "scope",
        "auth_time",
    ];
    let claims = Members::read(claims, &names)?;
    let user_id = text(&claims.get("sub")?)?;
    let issuer = claims.typed("iss", text)?;
    let jti = claims.typed("jti", text)?;
    let audience = claims.typed("aud", audience)?;
    let [exp, nbf, iat] = ["exp", "nbf", "iat"].map(|name| claims.typed(name, Value::as_f64));
    let (exp, nbf, iat) = (exp??, nbf?, iat?);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970");
    let now = now.as_secs_f64();
    let audience_is_right = match (rules.audience, &audience) {
        (None, claimed) => claimed.is_none(),
        (Some(audience), claimed) => claimed.iter().flatten().any(|one| one == audience),
    };
    let is_complete = !rules.access_tokens
        || jti.is_some()
            && iat.is_some()
            && claims.get("client_id").is_some_and(|id| id.is_string());
    let accepted = (1..=255).contains(&user_id.len())
        && rules
            .issuer
            .is_none_or(|wanted| issuer.as_deref() == Some(wanted))
        && audience_is_right
        && is_complete
        && exp > now
        && nbf.is_none_or(|nbf| (0.0..=now).contains(&nbf));
    accepted.then(|| Expected {
        user_id,
        issuer,
        audience: audience.unwrap_or_default(),
        jti,
    })
}

/// Whether the moment of the check, or the range of the clock, decides about the token.
fn is_borderline(claims: &[u8]) -> bool {
    let Ok(Members(members)) = serde_json::from_slice(claims) else {
        return false;
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970");
    let is_borderline = |seconds: f64| {
        (seconds - now.as_secs_f64()).abs() < MARGIN || seconds > 1e18 || seconds.abs() < 1e-6
    };
    let mut times = members
        .iter()
        .filter(|(name, _)| name == "exp" || name == "nbf");
    times.any(|(_, value)| value.get().parse().is_ok_and(is_borderline))
}

#[derive(Deserialize)]
struct Session {
    sid: Option<Value>,
}

/// The session that the claims name; `None` if it is the one that began with their token.
fn named_session(claims: &[u8]) -> Option<String> {
    let Session { sid } = serde_json::from_slice(claims).ok()?;
    let sid = sid?.as_str()?.to_owned();
    let bytes = decode_base64url(&sid)?;
    (bytes.len() == 16).then_some(sid)
}

fuzz_target!(|data: &[u8]| {
    let Some((selector, rest)) = data.split_first() else {
        return;
    };
    let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (header, claims) = (&rest[..at], &rest[at + 1..]);
    let (algorithm, rules) = (
        usize::from(selector & 3),
        &RULES[usize::from(selector >> 2 & 3)],
    );
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let signature = sign(algorithm, &message);
    let token = format!("{message}.{}", base64url(&signature));

    let verified = rules.verifier.verify(&token);
    let id = base64url(&Sha256::digest(&message)[..16]);
    // The store finds sessions whose first token was never replaced.
    if let Some(sid) = named_session(claims).filter(|sid| *sid != id) {
        let user = block_on(rules.manager.check_token(&token)).expect("no fault");
        assert!(user.is_none());
        if let Ok(verified) = verified {
            assert_eq!(verified.token_id().to_string(), sid);
        }
        return;
    }
    let user = block_on(rules.manager.check_token(&token)).expect("no fault");
    if !is_borderline(claims) {
        // The verifier returns all claims, and refuses some that JSON allows: numbers out of range, deep nesting.
        let is_representable = serde_json::from_slice::<Map<String, Value>>(claims).is_ok();
        assert_eq!(verified.is_ok(), user.is_some() && is_representable);
        let expected = expected(rules, algorithm, header, claims);
        let is_short = token.len() <= 4096;
        assert_eq!(user.is_some(), expected.is_some() && is_short, "{token}");
        if let (Ok(verified), Some(expected)) = (&verified, expected) {
            assert_eq!(verified.user_id(), expected.user_id);
            assert_eq!(verified.issuer(), expected.issuer.as_deref());
            assert_eq!(verified.audience(), expected.audience);
            assert_eq!(verified.jti(), expected.jti.as_deref());
        }
    }
    let Ok(verified) = verified else {
        return;
    };
    assert_eq!(verified.token_id().to_string(), id);
    let user = user.expect("a user");
    assert_eq!(
        (user.id(), user.token_id()),
        (verified.user_id(), Some(verified.token_id()))
    );
    assert!(
        verified
            .other()
            .keys()
            .all(|name| !["sub", "exp", "aud"].contains(&&**name))
    );
    let debug = format!("{verified:?}");
    for value in verified.other().values().filter_map(Value::as_str) {
        let is_long = value.len() >= 24 && !message.contains(value);
        let is_documented = verified.user_id().contains(value)
            || verified
                .issuer()
                .is_some_and(|issuer| issuer.contains(value))
            || verified.jti().is_some_and(|jti| jti.contains(value))
            || verified.audience().iter().any(|one| one.contains(value));
        assert!(
            !is_long || is_documented || !debug.contains(value),
            "{debug}"
        );
    }

    // One bit of the text, at a place that depends on the input.
    let place = data.iter().fold(7, |place: usize, byte| {
        place.wrapping_mul(31) + usize::from(*byte)
    });
    for at in [
        place % token.len(),
        message.len() + 1 + place % (token.len() - message.len() - 1),
    ] {
        let mut changed = token.clone().into_bytes();
        changed[at] ^= 1 << (place % 7);
        let changed = String::from_utf8(changed).expect("ASCII");
        assert!(rules.verifier.verify(&changed).is_err(), "{changed}");
    }
    let mut flipped = signature.clone();
    let at = place % flipped.len();
    flipped[at] ^= 1 << (place % 8);
    for signature in [
        &*flipped,
        &signature[1..],
        &signature[..signature.len() - 1],
        &[],
    ] {
        let forged = format!("{message}.{}", base64url(signature));
        assert!(rules.verifier.verify(&forged).is_err(), "{forged}");
    }
});
