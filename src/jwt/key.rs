use std::{fmt, sync::Arc};

use aws_lc_rs::error::Unspecified;

use super::crypto::{Algorithm, PublicKey, Signer, Verifier};
use crate::{Error, ErrorKind};

/// The shortest secret for HS256, in bytes (RFC 7518 §3.2: at least the size of the hash).
const MIN_SECRET_LEN: usize = 32;
/// The longest key id, in bytes.
const MAX_KEY_ID_LEN: usize = 128;

/// A key that signs tokens, with the id (`kid`) by which verifiers find its counterpart.
///
/// Its algorithm is fixed: no token can change it. `Debug` shows neither the secret nor the private key.
#[derive(Clone)]
pub struct SigningKey {
    signer: Arc<Signer>,
    public: VerifyingKey,
}

/// A key that verifies tokens, for one algorithm and under one id (`kid`).
#[derive(Clone)]
pub struct VerifyingKey {
    id: Box<str>,
    algorithm: Algorithm,
    verifier: Verifier,
    /// For the JWK Set; `None` for a shared secret.
    public: Option<PublicKey>,
}

/// # Errors
///
/// All constructors return [`ErrorKind::Config`] for a key of another kind or a key that is too weak, and for a key id
/// that is empty, is longer than 128 bytes, has control characters, or is a PEM text.
impl SigningKey {
    /// A key for HS256 (HMAC with SHA-256): a shared secret of at least 32 random bytes. Verifiers can also sign.
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Self, Error> {
        let public = VerifyingKey::hs256(id, secret)?;
        Self::new(Signer::hs256(secret), public)
    }

    /// A key for ES256 (ECDSA on P-256 with SHA-256): a private key in PKCS#8 PEM.
    pub fn es256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::private(id, Algorithm::ES256, pem)
    }

    /// A key for EdDSA (Ed25519): a private key in PKCS#8 PEM.
    pub fn eddsa(id: &str, pem: &str) -> Result<Self, Error> {
        Self::private(id, Algorithm::EdDSA, pem)
    }

    /// A key for RS256 (RSASSA-PKCS1-v1_5 with SHA-256): a private key of at least 2048 bits in PKCS#8 or PKCS#1 PEM.
    pub fn rs256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::private(id, Algorithm::RS256, pem)
    }

    fn private(id: &str, algorithm: Algorithm, pem: &str) -> Result<Self, Error> {
        // First of all: error messages contain the id, which must not be the key.
        let id = checked_id(id)?;
        let (signer, public) =
            Signer::from_pem(algorithm, pem).ok_or_else(|| unusable(&id, algorithm, "private"))?;
        Self::new(signer, VerifyingKey::public(id, public)?)
    }

    /// Signs and verifies once, so that an unusable key fails here and not at the first login.
    fn new(signer: Signer, public: VerifyingKey) -> Result<Self, Error> {
        let probe = b"a probe";
        let signed = signer.sign(probe);
        match signed.and_then(|signature| public.verify(probe, &signature)) {
            Ok(()) => Ok(Self {
                signer: Arc::new(signer),
                public,
            }),
            Err(Unspecified) => Err(unusable(&public.id, public.algorithm, "private")),
        }
    }

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        self.signer.sign(message)
    }
}

/// # Errors
///
/// All constructors return [`ErrorKind::Config`] for a key of another kind or a key that is too weak, and for a key id
/// that is empty, is longer than 128 bytes, has control characters, or is a PEM text.
impl VerifyingKey {
    /// A key for HS256: a shared secret of at least 32 random bytes.
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Self, Error> {
        let id = checked_id(id)?;
        if secret.len() < MIN_SECRET_LEN {
            let message = format!(
                "the secret of key {id:?} has {} bytes; HS256 needs at least {MIN_SECRET_LEN}",
                secret.len()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self {
            id,
            algorithm: Algorithm::HS256,
            verifier: Verifier::hs256(secret),
            public: None,
        })
    }

    /// A key for ES256: a public key in PEM (`PUBLIC KEY`).
    pub fn es256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::from_pem(id, Algorithm::ES256, pem)
    }

    /// A key for EdDSA (Ed25519): a public key in PEM (`PUBLIC KEY`).
    ///
    /// It verifies tokens whose `alg` is `EdDSA` or `Ed25519` (RFC 9864).
    pub fn eddsa(id: &str, pem: &str) -> Result<Self, Error> {
        Self::from_pem(id, Algorithm::EdDSA, pem)
    }

    /// A key for RS256: a public key of at least 2048 bits in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`).
    pub fn rs256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::from_pem(id, Algorithm::RS256, pem)
    }

    fn from_pem(id: &str, algorithm: Algorithm, pem: &str) -> Result<Self, Error> {
        let id = checked_id(id)?;
        let public = PublicKey::from_pem(algorithm, pem);
        let public = public.ok_or_else(|| unusable(&id, algorithm, "public"))?;
        Self::public(id, public)
    }

    fn public(id: Box<str>, public: PublicKey) -> Result<Self, Error> {
        Self::from_parts(id, public).map_err(|(id, reason)| {
            let message = format!("the key {id:?} cannot be used: {reason}");
            Error::new(ErrorKind::Config, message)
        })
    }

    /// Creates a key with a [valid](is_key_id) id, or returns the id and the reason why the key cannot be used.
    pub(super) fn from_parts(
        id: Box<str>,
        public: PublicKey,
    ) -> Result<Self, (Box<str>, &'static str)> {
        match Verifier::new(&public) {
            Ok(verifier) => Ok(Self {
                id,
                algorithm: public.algorithm(),
                verifier,
                public: Some(public),
            }),
            Err(reason) => Err((id, reason)),
        }
    }

    /// The id of the key (`kid`).
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn public_key(&self) -> Option<&PublicKey> {
        self.public.as_ref()
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Unspecified> {
        self.verifier.verify(message, signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.public.fmt_as("SigningKey", f)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("VerifyingKey", f)
    }
}

impl VerifyingKey {
    fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Whether a text is a valid key id. A PEM text is not, in case the caller swapped id and key.
pub(super) fn is_key_id(id: &str) -> bool {
    (1..=MAX_KEY_ID_LEN).contains(&id.len())
        && !id.contains(char::is_control)
        && !id.contains("-----")
}

fn checked_id(id: &str) -> Result<Box<str>, Error> {
    if !is_key_id(id) {
        // The id is not quoted, in case it is a key.
        let message = format!(
            "a key id must have 1 to {MAX_KEY_ID_LEN} bytes and no control characters, and must not be a PEM text"
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(id.into())
}

fn unusable(id: &str, algorithm: Algorithm, kind: &str) -> Error {
    let needed = match algorithm {
        Algorithm::RS256 => "an RSA key of 2048 to 8192 bits in PEM",
        Algorithm::ES256 => "a key on the curve P-256 in PEM (PKCS#8 if it is private)",
        Algorithm::EdDSA | Algorithm::HS256 => "an Ed25519 key in PEM (PKCS#8 if it is private)",
    };
    // A detailed reason might quote the key.
    let message = format!("key {id:?} is not a {kind} key for {algorithm:?}, which needs {needed}");
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
    use serde_json::json;

    use super::*;
    use crate::jwt::jwk::read_set;

    /// In the examples of RFC 7515 (appendix A.1 to A.3) and RFC 8037 (A.4), each key verifies its own signature only.
    #[test]
    fn the_examples_of_the_rfcs() {
        let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let secret = [
            3, 35, 53, 75, 43, 15, 165, 188, 131, 126, 6, 101, 119, 123, 166, 143, 90, 179, 40,
            230, 240, 84, 201, 40, 169, 15, 132, 178, 210, 80, 46, 191, 211, 251, 90, 146, 210, 6,
            71, 239, 150, 138, 180, 195, 119, 98, 61, 34, 61, 46, 33, 114, 5, 46, 79, 8, 192, 205,
            154, 245, 103, 208, 128, 163,
        ];
        let jwk = |jwk: serde_json::Value| {
            let set = json!({ "keys": [jwk] }).to_string();
            read_set(&set).unwrap().0.remove(0)
        };
        let keys = [
            VerifyingKey::hs256("A.1", &secret).unwrap(),
            jwk(json!({
                "kid": "A.2", "kty": "RSA", "e": "AQAB",
                "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            })),
            jwk(json!({
                "kid": "A.3", "kty": "EC", "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            })),
            jwk(json!({
                "kid": "A.4", "kty": "OKP", "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            })),
        ];
        let signed = [
            (
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
                payload,
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                "eyJhbGciOiJSUzI1NiJ9",
                payload,
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                "eyJhbGciOiJFUzI1NiJ9",
                payload,
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                "eyJhbGciOiJFZERTQSJ9",
                "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ];
        for (at, (header, payload, signature)) in signed.into_iter().enumerate() {
            let message = format!("{header}.{payload}");
            for (key_at, key) in keys.iter().enumerate() {
                let signature = BASE64URL.decode(signature).unwrap();
                let verified = key.verify(message.as_bytes(), &signature);
                assert_eq!(verified.is_ok(), at == key_at, "{at} {key_at}");
            }
        }
    }
}
