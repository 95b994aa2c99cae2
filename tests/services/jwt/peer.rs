//! Tokens of another implementation, PyJWT, and the other way round.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tower_bearer_session::{TokenOptions, jwt::JwtVerifier, store::Operation};

use super::{
    EDDSA, EDDSA_PUBLIC, ES256, ES256_PUBLIC, RS256, RS256_PUBLIC, SECRET, config, counted, now,
    signing_keys,
};

/// A Python process that does as it is told, line by line.
struct Peer {
    process: Child,
    answers: Box<dyn BufRead>,
}

impl Peer {
    fn start() -> Self {
        let found = Command::new("/usr/bin/python3")
            .args(["-c", "import jwt, cryptography"])
            .stderr(Stdio::null())
            .status();
        assert!(
            found.is_ok_and(|status| status.success()),
            "this test needs Debian's packages python3-jwt and python3-cryptography: `tests/run` installs them"
        );
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/services/jwt/peer.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = Box::new(BufReader::new(process.stdout.take().unwrap()));
        Self { process, answers }
    }

    fn ask(&mut self, order: &Value) -> Value {
        let mut orders = self.process.stdin.as_ref().unwrap();
        writeln!(orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("an answer of the other implementation")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn both_implementations_understand_each_other() {
    let mut peer = Peer::start();
    let secret = std::str::from_utf8(SECRET).unwrap();
    let pems = [
        (secret, secret),
        (ES256, ES256_PUBLIC),
        (EDDSA, EDDSA_PUBLIC),
        (RS256, RS256_PUBLIC),
    ];
    for (key, (private, public)) in signing_keys().into_iter().zip(pems) {
        let alg = key.verifying_key().id();
        let config = config(&key).issuer("login").audience("shop");
        let config = config.claims(|session| {
            let tenant = session.metadata()["tenant"].clone();
            Ok(json!({ "tenant": { "id": tenant }, "groups": ["a", "ü"], "n": 1.5 }))
        });
        let (manager, faults) = counted(config.clone());

        // Ours there.
        let options = TokenOptions::new().max_lifetime(Duration::from_secs(60));
        let options = options.metadata("tenant", 7).scopes(["read", "write"]);
        let token = manager.set_token_with("ål", options).await.unwrap().token;
        let text = token.expose_secret();
        let mut order = json!({
            "do": "verify", "token": text, "key": public, "alg": alg, "iss": "login", "aud": "shop",
        });
        let claims = peer.ask(&order);
        assert_eq!(claims["sub"], "ål", "{alg}");
        assert_eq!(claims["scope"], "read write", "{alg}");
        assert_eq!(claims["auth_time"], claims["iat"], "{alg}");
        assert_eq!(claims["tenant"], json!({ "id": 7 }), "{alg}");
        assert_eq!(claims["groups"], json!(["a", "ü"]), "{alg}");
        assert_eq!(claims["n"], 1.5, "{alg}");
        order["aud"] = json!("bank");
        assert_eq!(peer.ask(&order)["error"], "InvalidAudienceError", "{alg}");
        if alg != "HS256" {
            let order = json!({
                "do": "look up", "token": text, "jwk_set": config.jwk_set(), "alg": alg, "aud": "shop",
            });
            assert_eq!(peer.ask(&order)["sub"], "ål", "{alg}");
        }

        // Theirs here: verified, and unknown to the store.
        let claims =
            json!({"sub": "ål", "iss": "login", "aud": "shop", "iat": now(), "exp": now() + 60});
        let mut order =
            json!({"do": "mint", "claims": claims, "key": private, "alg": alg, "kid": alg});
        let theirs = peer.ask(&order);
        let theirs = theirs.as_str().unwrap();
        let verifier: JwtVerifier = config.verifier().unwrap();
        assert_eq!(verifier.verify(theirs).unwrap().user_id(), "ål", "{alg}");
        let before = faults.on(Operation::Check).calls();
        assert!(manager.check_token(theirs).await.unwrap().is_none());
        assert_eq!(faults.on(Operation::Check).calls(), before + 1, "{alg}");
        // An access token of RFC 9068.
        order["typ"] = json!("at+jwt");
        order["claims"]["client_id"] = json!("app");
        order["claims"]["jti"] = json!("x");
        let access = peer.ask(&order);
        let access = access.as_str().unwrap();
        assert!(verifier.verify(access).is_err(), "{alg}");
        let strict = config.access_tokens("app").verifier().unwrap();
        assert_eq!(strict.verify(access).unwrap().user_id(), "ål", "{alg}");
        assert!(strict.verify(theirs).is_err(), "{alg}");
        order["typ"] = json!("JWT");
        order["claims"]["exp"] = json!(now() - 60);
        let late = peer.ask(&order);
        assert!(verifier.verify(late.as_str().unwrap()).is_err(), "{alg}");
    }
}

/// Keys that PyJWT publishes, the RSA key with a leading zero octet in its modulus: they verify what PyJWT signs.
#[test]
fn a_foreign_jwk_set_verifies_foreign_tokens() {
    let mut peer = Peer::start();
    let key = |alg: &str, pem: &str| json!({"kid": alg, "alg": alg, "pem": pem});
    let keys = [
        key("ES256", ES256_PUBLIC),
        key("EdDSA", EDDSA_PUBLIC),
        key("RS256", RS256_PUBLIC),
    ];
    let set = peer.ask(&json!({"do": "publish", "keys": keys}));
    let set = set.as_str().unwrap();
    assert!(set.contains("\"n\": \"A"), "a leading zero octet: {set}");
    let builder = JwtVerifier::from_jwk_set(set).unwrap();
    assert!(builder.ignored_keys().is_empty());
    let verifier = builder.build().unwrap();
    for (alg, private) in [("ES256", ES256), ("EdDSA", EDDSA), ("RS256", RS256)] {
        let claims = json!({"sub": "al", "exp": now() + 60});
        let token = peer.ask(&json!({
            "do": "mint", "claims": claims, "key": private, "alg": alg, "kid": alg,
        }));
        let claims = verifier.verify(token.as_str().unwrap());
        assert_eq!(claims.expect(alg).user_id(), "al");
    }
}
