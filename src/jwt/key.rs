use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{aws_lc, sign, verify},
    errors::Error as JwtError,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};

use crate::{Error, ErrorKind};

/// The shortest secret for HS256, in bytes (RFC 7518 §3.2: a key of the size of the hash or larger).
const MIN_SECRET_LEN: usize = 32;
/// The shortest RSA modulus, in bits (RFC 7518 §3.3).
const MIN_RSA_BITS: usize = 2048;
/// The longest key id, in bytes.
const MAX_KEY_ID_LEN: usize = 128;

/// A key that signs tokens, with the id (`kid`) by which verifiers find its counterpart.
///
/// Its algorithm is fixed: nothing that a token says changes it. `Debug` shows neither secret nor private key.
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    public: VerifyingKey,
}

/// A key that verifies tokens, for one algorithm and under one id (`kid`).
#[derive(Clone)]
pub struct VerifyingKey {
    pub(super) id: Box<str>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// To publish; a shared secret has none.
    pub(super) jwk: Option<Jwk>,
}

/// # Errors
///
/// All of these give [`ErrorKind::Config`] for a key that is no such key or too weak, and for a key id that is empty,
/// longer than 128 bytes, or has control characters.
impl SigningKey {
    /// HS256 (HMAC with SHA-256) with a shared secret of at least 32 random bytes. Whoever can verify can also sign.
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Self, Error> {
        let public = VerifyingKey::hs256(id, secret)?;
        Self::new(EncodingKey::from_secret(secret), public)
    }

    /// ES256 (ECDSA on P-256 with SHA-256) with a private key in PKCS#8 PEM.
    pub fn es256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::private(id, Algorithm::ES256, EncodingKey::from_ec_pem, pem)
    }

    /// EdDSA (Ed25519) with a private key in PKCS#8 PEM.
    pub fn eddsa(id: &str, pem: &str) -> Result<Self, Error> {
        Self::private(id, Algorithm::EdDSA, EncodingKey::from_ed_pem, pem)
    }

    /// RS256 (RSASSA-PKCS1-v1_5 with SHA-256) with a private key of at least 2048 bits in PKCS#8 or PKCS#1 PEM.
    pub fn rs256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::private(id, Algorithm::RS256, EncodingKey::from_rsa_pem, pem)
    }

    fn private(
        id: &str,
        algorithm: Algorithm,
        read: fn(&[u8]) -> Result<EncodingKey, JwtError>,
        pem: &str,
    ) -> Result<Self, Error> {
        use_one_provider();
        // First of all: what is wrong with a key is told with its id, which must not be the key.
        let id = checked_id(id)?;
        let unusable = || unusable(&id, algorithm, "private");
        let key = read(pem.as_bytes()).map_err(|_| unusable())?;
        let public = Jwk::from_encoding_key(&key, algorithm);
        let public = public.and_then(|jwk| DecodingKey::from_jwk(&jwk));
        let public = public.map_err(|_| unusable())?;
        Self::new(key, VerifyingKey::public(id, algorithm, public)?)
    }

    /// Tries the key once, so that no login is the first to find out.
    fn new(key: EncodingKey, public: VerifyingKey) -> Result<Self, Error> {
        let probe = b"a probe";
        let signed = sign(probe, &key, public.algorithm);
        let verified =
            signed.and_then(|signature| verify(&signature, probe, &public.key, public.algorithm));
        match verified {
            Ok(true) => Ok(Self { key, public }),
            _ => Err(unusable(&public.id, public.algorithm, "private")),
        }
    }

    /// The key that verifies what this one signs.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    pub(super) fn key(&self) -> &EncodingKey {
        &self.key
    }
}

/// # Errors
///
/// All of these give [`ErrorKind::Config`] for a key that is no such key or too weak, and for a key id that is empty,
/// longer than 128 bytes, or has control characters.
impl VerifyingKey {
    /// HS256 with a shared secret of at least 32 random bytes.
    pub fn hs256(id: &str, secret: &[u8]) -> Result<Self, Error> {
        use_one_provider();
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
            key: DecodingKey::from_secret(secret),
            jwk: None,
        })
    }

    /// ES256 with a public key in PEM (`PUBLIC KEY`).
    pub fn es256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::from_pem(id, Algorithm::ES256, DecodingKey::from_ec_pem, pem)
    }

    /// EdDSA (Ed25519) with a public key in PEM (`PUBLIC KEY`).
    pub fn eddsa(id: &str, pem: &str) -> Result<Self, Error> {
        Self::from_pem(id, Algorithm::EdDSA, DecodingKey::from_ed_pem, pem)
    }

    /// RS256 with a public key of at least 2048 bits in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`).
    pub fn rs256(id: &str, pem: &str) -> Result<Self, Error> {
        Self::from_pem(id, Algorithm::RS256, DecodingKey::from_rsa_pem, pem)
    }

    fn from_pem(
        id: &str,
        algorithm: Algorithm,
        read: fn(&[u8]) -> Result<DecodingKey, JwtError>,
        pem: &str,
    ) -> Result<Self, Error> {
        let id = checked_id(id)?;
        let key = read(pem.as_bytes()).map_err(|_| unusable(&id, algorithm, "public"))?;
        Self::public(id, algorithm, key)
    }

    /// A key of a JWK Set; `None` if it is not for us (RFC 7517 §5: such keys are ignored).
    pub(super) fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let (id, usage) = (jwk.common.key_id.as_ref()?, &jwk.common.public_key_use);
        if !matches!(usage, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(_) => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
            _ => return None,
        };
        let named = jwk.common.key_algorithm;
        if named.is_some_and(|named| named != algorithm.into()) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Self::public(checked_id(id).ok()?, algorithm, key).ok()
    }

    /// The id was checked.
    fn public(id: Box<str>, algorithm: Algorithm, key: DecodingKey) -> Result<Self, Error> {
        use_one_provider();
        let unusable = || unusable(&id, algorithm, "public");
        let mut jwk = Jwk::from_decoding_key(&key, Some(algorithm)).map_err(|_| unusable())?;
        match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if algorithm == Algorithm::RS256 => {
                let bits = modulus_bits(&rsa.n);
                if bits < MIN_RSA_BITS {
                    let message = format!(
                        "the RSA key {id:?} has {bits} bits; RS256 needs at least {MIN_RSA_BITS}"
                    );
                    return Err(Error::new(ErrorKind::Config, message));
                }
            }
            AlgorithmParameters::EllipticCurve(curve)
                if algorithm == Algorithm::ES256 && curve.curve == EllipticCurve::P256 => {}
            AlgorithmParameters::OctetKeyPair(_) if algorithm == Algorithm::EdDSA => {}
            _ => return Err(unusable()),
        }
        jwk.common.key_id = Some(id.to_string());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            id,
            algorithm,
            key,
            jwk: Some(jwk),
        })
    }

    /// The id of the key (`kid`).
    pub fn id(&self) -> &str {
        &self.id
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

/// Where something else in the program turned on another provider, too, jsonwebtoken would not choose one, but panic.
fn use_one_provider() {
    // An error means that the program has chosen one.
    let _ = aws_lc::DEFAULT_PROVIDER.install_default();
}

fn checked_id(id: &str) -> Result<Box<str>, Error> {
    let is_pem = id.contains("-----");
    if id.is_empty() || id.len() > MAX_KEY_ID_LEN || id.contains(char::is_control) || is_pem {
        // It is not quoted, in case that somebody swapped id and key.
        let message = format!(
            "a key id has 1 to {MAX_KEY_ID_LEN} bytes without control characters, and is no PEM"
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    Ok(id.into())
}

/// The length of an RSA modulus, which is base64url.
fn modulus_bits(n: &str) -> usize {
    // Six bits a character, and up to four are padding of the last byte.
    let first = n.trim_start_matches('A');
    first.len() * 6 / 8 * 8
}

fn unusable(id: &str, algorithm: Algorithm, kind: &str) -> Error {
    let wanted = match algorithm {
        Algorithm::RS256 => "an RSA key of 2048 to 8192 bits, in PEM",
        Algorithm::ES256 => "a key on the curve P-256, in PEM (PKCS#8 if it is private)",
        _ => "an Ed25519 key, in PEM (PKCS#8 if it is private)",
    };
    // What is wrong in detail might quote the key.
    let message = format!("key {id:?} is no {kind} key for {algorithm:?}: {wanted}, is wanted");
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7515 (appendix A.1 to A.3) and RFC 8037 (A.4): their keys verify their signatures, and no others.
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
            VerifyingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap()
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
                let verified = verify(signature, message.as_bytes(), &key.key, key.algorithm);
                assert_eq!(verified.unwrap_or(false), at == key_at, "{at} {key_at}");
            }
        }
    }

    #[test]
    fn a_modulus_is_measured() {
        // RFC 7518 §6.3.1.1: without leading zeros, and the first byte of a real one has its highest bit set.
        let encoded = |bytes: usize| "w".repeat((bytes * 8).div_ceil(6));
        assert_eq!(modulus_bits(&encoded(256)), 2048);
        assert_eq!(modulus_bits(&encoded(255)), 2040);
        assert_eq!(modulus_bits(&format!("AAAA{}", encoded(128))), 1024);
    }
}
