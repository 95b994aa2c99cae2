//! Keys and signatures with aws-lc, without any process-wide default.

use std::{ops::RangeInclusive, sync::Arc};

use aws_lc_rs::{
    encoding::AsDer,
    error::Unspecified,
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use curve25519_dalek::edwards::CompressedEdwardsY;

/// The lengths of an RSA modulus, in bits: RFC 7518 §3.3 sets the lower bound, the library the upper one.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;
/// The longest RSA exponent, in octets; the usual one, 65537, has three.
const MAX_EXPONENT_LEN: usize = 4;
/// The first octet of an uncompressed point (SEC 1, §2.3.3).
const UNCOMPRESSED: u8 = 4;
const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    HS256,
    ES256,
    EdDSA,
    RS256,
}

impl Algorithm {
    /// The `alg` of tokens that are signed with it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::RS256 => "RS256",
        }
    }

    /// The algorithm that an `alg` names. For Ed25519 keys, `EdDSA` (RFC 8037 §3.1) and `Ed25519` (RFC 9864 §2.2) are
    /// the same.
    pub(super) fn named(alg: &str) -> Option<Self> {
        match alg {
            "HS256" => Some(Self::HS256),
            "ES256" => Some(Self::ES256),
            "EdDSA" | "Ed25519" => Some(Self::EdDSA),
            "RS256" => Some(Self::RS256),
            _ => None,
        }
    }
}

/// A public key in the components of a JWK.
#[derive(Clone)]
pub(super) enum PublicKey {
    /// Modulus and exponent, without leading zeros.
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// A point on P-256, by its coordinates.
    P256 {
        x: [u8; 32],
        y: [u8; 32],
    },
    Ed25519([u8; 32]),
}

impl PublicKey {
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Self {
        let without_zeros = |octets: &[u8]| {
            let zeros = octets.iter().take_while(|&&octet| octet == 0).count();
            octets[zeros..].into()
        };
        Self::Rsa {
            n: without_zeros(n),
            e: without_zeros(e),
        }
    }

    /// Reads the key in a PEM text; `None` without a key for this algorithm.
    pub(super) fn from_pem(algorithm: Algorithm, pem: &str) -> Option<Self> {
        let pem = pem::parse(pem).ok()?;
        let der = pem.contents();
        match (algorithm, pem.tag()) {
            (Algorithm::RS256, PUBLIC | "RSA PUBLIC KEY") => {
                let key = rsa::PublicKey::from_der(der).ok()?;
                Some(Self::rsa(
                    key.modulus().big_endian_without_leading_zero(),
                    key.exponent().big_endian_without_leading_zero(),
                ))
            }
            (Algorithm::ES256, PUBLIC) => {
                let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).ok()?;
                // RFC 5480 §2: the point is the end of the encoding.
                Self::from_point(key.as_der().ok()?.as_ref().last_chunk::<65>()?)
            }
            (Algorithm::EdDSA, PUBLIC) => {
                let key = ParsedPublicKey::new(&ED25519, der).ok()?;
                // RFC 8410 §4: the key is the end of the encoding.
                let key = key.as_der().ok()?.as_ref().last_chunk::<32>().copied();
                Some(Self::Ed25519(key?))
            }
            _ => None,
        }
    }

    fn from_point(point: &[u8; 65]) -> Option<Self> {
        let (&[first], coordinates) = point.split_first_chunk()?;
        let (x, y) = coordinates.split_at_checked(32)?;
        let (x, y) = (x.try_into().ok()?, y.try_into().ok()?);
        (first == UNCOMPRESSED).then_some(Self::P256 { x, y })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::RS256,
            Self::P256 { .. } => Algorithm::ES256,
            Self::Ed25519(_) => Algorithm::EdDSA,
        }
    }
}

/// The part of a key that verifies signatures.
#[derive(Clone)]
pub(super) enum Verifier {
    Secret(Arc<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Verifier {
    pub(super) fn hs256(secret: &[u8]) -> Self {
        Self::Secret(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Creates a verifier, or returns the reason why the key is unusable or too weak.
    pub(super) fn new(key: &PublicKey) -> Result<Self, &'static str> {
        let parsed = match key {
            PublicKey::Rsa { n, e } => {
                let bits = n
                    .first()
                    .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
                if !RSA_BITS.contains(&bits) {
                    return Err("its RSA modulus does not have 2048 to 8192 bits");
                }
                // The library would detect these only when it verifies a signature (RFC 8017 §3.1).
                if e.len() > MAX_EXPONENT_LEN || **e == [1] {
                    return Err("its RSA exponent is 1 or has more than 32 bits");
                }
                let is_odd = |octets: &[u8]| octets.last().is_some_and(|last| last % 2 == 1);
                if !is_odd(n) || !is_odd(e) {
                    return Err("its RSA modulus or exponent is even");
                }
                let key = RsaPublicKeyComponents { n, e };
                key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            }
            PublicKey::P256 { x, y } => {
                let point = [&[UNCOMPRESSED], &x[..], &y[..]].concat();
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            }
            PublicKey::Ed25519(x) => {
                // The library accepts any 32 octets. With a point of small order, a signature fits any message.
                let point = CompressedEdwardsY(*x).decompress();
                let point = point.filter(|point| point.compress().0 == *x);
                if point.is_none_or(|point| point.is_small_order()) {
                    return Err("its `x` is not a point of Ed25519, or a point of small order");
                }
                ParsedPublicKey::new(&ED25519, x)
            }
        };
        let reason = match key {
            PublicKey::Rsa { .. } => "its `n` and `e` are not an RSA key",
            PublicKey::P256 { .. } => "its `x` and `y` are not a point on P-256",
            PublicKey::Ed25519(_) => "its `x` is not an Ed25519 key",
        };
        parsed.map(Self::Public).map_err(|_| reason)
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Unspecified> {
        match self {
            // In constant time.
            Self::Secret(key) => hmac::verify(key, message, signature),
            Self::Public(key) => key.verify_sig(message, signature),
        }
    }
}

/// The part of a key that signs.
pub(super) enum Signer {
    Secret(Box<hmac::Key>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(super) fn hs256(secret: &[u8]) -> Self {
        Self::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Reads the private key in a PEM text, with its public key; `None` without a key for this algorithm.
    pub(super) fn from_pem(algorithm: Algorithm, pem: &str) -> Option<(Self, PublicKey)> {
        let pem = pem::parse(pem).ok()?;
        let der = pem.contents();
        match (algorithm, pem.tag()) {
            (Algorithm::ES256, PRIVATE) => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
                let point = key.public_key().as_ref().try_into().ok()?;
                let public = PublicKey::from_point(point)?;
                Some((Self::Ecdsa(key), public))
            }
            (Algorithm::EdDSA, PRIVATE) => {
                let key = Ed25519KeyPair::from_pkcs8(der).ok()?;
                let public = key.public_key().as_ref().try_into().ok()?;
                Some((Self::Ed25519(key), PublicKey::Ed25519(public)))
            }
            (Algorithm::RS256, PRIVATE) => Some(Self::rsa(RsaKeyPair::from_pkcs8(der).ok()?)),
            (Algorithm::RS256, "RSA PRIVATE KEY") => {
                Some(Self::rsa(RsaKeyPair::from_der(der).ok()?))
            }
            _ => None,
        }
    }

    fn rsa(key: RsaKeyPair) -> (Self, PublicKey) {
        let public = key.public_key();
        let public = PublicKey::rsa(
            public.modulus().big_endian_without_leading_zero(),
            public.exponent().big_endian_without_leading_zero(),
        );
        (Self::Rsa(key), public)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Ecdsa(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}
