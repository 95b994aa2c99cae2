//! Public keys as JSON (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use std::{collections::HashSet, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

use super::{
    VerifyingKey,
    crypto::{Algorithm, PublicKey},
    key::is_key_id,
};
use crate::{Error, ErrorKind};

/// The members that only private and shared keys have (RFC 7518 §6.2.2, §6.3.2 and §6.4, RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A key of a JWK Set that is not used, and the reason; from
/// [`JwtVerifier::ignored_keys`](super::JwtVerifier::ignored_keys).
///
/// `Display` is for logs: it shows the position and id of the key and the reason, and nothing else of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredKey {
    position: usize,
    id: Option<Box<str>>,
    reason: &'static str,
}

impl IgnoredKey {
    /// The position in `keys`, counted from 0.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The id (`kid`); `None` if the key has no valid one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The reason why the key is ignored, as a text for humans.
    pub fn reason(&self) -> &str {
        self.reason
    }
}

impl fmt::Display for IgnoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys[{}]", self.position)?;
        if let Some(id) = &self.id {
            write!(f, " ({id:?})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Reads a JWK Set: the keys that verify tokens, at least one, and the ignored ones (RFC 7517 §5).
pub(super) fn read_set(json: &str) -> Result<(Vec<VerifyingKey>, Vec<IgnoredKey>), Error> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Element>,
    }
    let error = |message: String| Error::new(ErrorKind::Config, message);
    // A struct could be read from an array as well.
    let set = json
        .trim_ascii_start()
        .starts_with('{')
        .then(|| serde_json::from_str::<Set>(json).ok());
    let set = set
        .flatten()
        .ok_or_else(|| error("this is not a JWK Set".to_owned()))?;
    let (mut keys, mut ignored) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (position, element) in set.keys.into_iter().enumerate() {
        let (id, key) = match element {
            Element::Object(members) => (members.key_id().map(Box::from), members.key()),
            Element::Other(IgnoredAny) => (None, Err("it is no object")),
        };
        let key = key.and_then(|key| {
            // The first of two keys wins.
            let is_new = seen.insert((Box::<str>::from(key.id()), key.algorithm()));
            let reason = "a key before it has the same `kid` and algorithm";
            is_new.then_some(key).ok_or(reason)
        });
        match key {
            Ok(key) => keys.push(key),
            Err(reason) => ignored.push(IgnoredKey {
                position,
                id,
                reason,
            }),
        }
    }
    if keys.is_empty() {
        let reasons: Vec<_> = ignored.iter().map(ToString::to_string).collect();
        let reasons = match &*reasons {
            [] => "it is empty".to_owned(),
            reasons => reasons.join("; "),
        };
        return Err(error(format!("the JWK Set has no usable key: {reasons}")));
    }
    Ok((keys, ignored))
}

/// The JWK of a public key; `None` for a shared secret.
pub(super) fn write(key: &VerifyingKey) -> Option<Value> {
    let encode = |octets: &[u8]| BASE64URL.encode(octets);
    let mut jwk = match key.public_key()? {
        PublicKey::Rsa { n, e } => json!({"kty": "RSA", "n": encode(n), "e": encode(e)}),
        PublicKey::P256 { x, y } => {
            json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
        }
        PublicKey::Ed25519(x) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(x)}),
    };
    jwk["kid"] = key.id().into();
    jwk["use"] = "sig".into();
    jwk["alg"] = key.algorithm().name().into();
    Some(jwk)
}

/// An element of `keys`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Object(Members),
    Other(IgnoredAny),
}

/// The members of a JWK.
struct Members {
    values: Map<String, Value>,
    /// Whether two members have the same name: readers differ in which one counts (RFC 7517 §4).
    repeated: bool,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let (mut values, mut repeated) = (Map::new(), false);
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    repeated |= values.insert(name, value).is_some();
                }
                Ok(Members { values, repeated })
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Members {
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    /// The id, if it is valid and so can be shown.
    fn key_id(&self) -> Option<&str> {
        self.text("kid").filter(|id| is_key_id(id))
    }

    /// Reads the key, or returns the reason why it is ignored.
    fn key(&self) -> Result<VerifyingKey, &'static str> {
        if self.repeated {
            return Err("two of its members have the same name");
        }
        // First of all: a published secret must not go unnoticed.
        if self.text("kty") == Some("oct") {
            return Err("it is a shared secret, with which every reader of the set could sign");
        }
        if PRIVATE_MEMBERS
            .iter()
            .any(|name| self.values.contains_key(*name))
        {
            return Err("it is a private key, with which every reader of the set can sign");
        }
        self.check_usage()?;
        let id = self.key_id();
        let id =
            id.ok_or("its `kid` is missing, empty, longer than 128 bytes or not a valid text")?;
        let public = self.public_key()?;
        self.check_algorithm(public.algorithm())?;
        VerifyingKey::from_parts(id.into(), public).map_err(|(_, reason)| reason)
    }

    /// Checks `use` and `key_ops` (RFC 7517 §4.2 and §4.3).
    fn check_usage(&self) -> Result<(), &'static str> {
        if self.values.contains_key("use") && self.text("use") != Some("sig") {
            return Err("its `use` is not `sig`");
        }
        let Some(operations) = self.values.get("key_ops") else {
            return Ok(());
        };
        let operations = operations.as_array().map_or(&[][..], |list| list);
        let mut distinct = HashSet::new();
        let allowed = operations.iter().all(|operation| {
            matches!(operation.as_str(), Some("verify" | "sign")) && distinct.insert(operation)
        });
        if !allowed || !operations.iter().any(|operation| operation == "verify") {
            return Err("its `key_ops` are not `verify`, alone or with `sign`");
        }
        Ok(())
    }

    fn public_key(&self) -> Result<PublicKey, &'static str> {
        match (self.text("kty"), self.text("crv")) {
            (Some("RSA"), _) => {
                let error = "its `n` or `e` is missing or not base64url";
                let octets = |name| self.octets(name).ok_or(error);
                Ok(PublicKey::rsa(&octets("n")?, &octets("e")?))
            }
            (Some("EC"), Some("P-256")) => {
                let error = "its `x` or `y` is missing or not 32 octets in base64url";
                let octets = |name| self.octets_32(name).ok_or(error);
                Ok(PublicKey::P256 {
                    x: octets("x")?,
                    y: octets("y")?,
                })
            }
            (Some("OKP"), Some("Ed25519")) => {
                let error = "its `x` is missing or not 32 octets in base64url";
                Ok(PublicKey::Ed25519(self.octets_32("x").ok_or(error)?))
            }
            (Some("EC" | "OKP"), _) => Err("its `crv` is missing or not supported"),
            _ => Err("its `kty` is missing or not supported"),
        }
    }

    /// Checks `alg`: a key with an `alg` is only for that algorithm (RFC 7517 §4.4).
    fn check_algorithm(&self, algorithm: Algorithm) -> Result<(), &'static str> {
        let named = self.text("alg").and_then(Algorithm::named);
        match self.values.contains_key("alg") && named != Some(algorithm) {
            true => Err("its `alg` is not supported or not for such a key"),
            false => Ok(()),
        }
    }

    fn octets(&self, name: &str) -> Option<Vec<u8>> {
        BASE64URL.decode(self.text(name)?).ok()
    }

    fn octets_32(&self, name: &str) -> Option<[u8; 32]> {
        self.octets(name)?.try_into().ok()
    }
}
