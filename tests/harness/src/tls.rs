//! Certificates for servers and clients, made anew for each test.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// A certificate authority of its own, with a certificate for servers and one for clients, in PEM.
#[derive(Debug)]
pub struct Pki {
    ca: String,
    server: Identity,
    client: Identity,
}

/// A certificate and its private key.
#[derive(Debug)]
pub struct Identity {
    /// In PEM.
    pub certificate: String,
    /// In PEM.
    pub key: String,
}

impl Pki {
    /// For servers on this machine.
    #[allow(clippy::new_without_default, reason = "each has keys of its own")]
    pub fn new() -> Self {
        Self::for_hosts(&["localhost", "127.0.0.1"])
    }

    /// The same with a server's certificate for other names and addresses.
    pub fn for_hosts(hosts: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut ca = parameters("authority", &[]);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = ca.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(ca, key);
        Self {
            ca: certificate.pem(),
            server: Identity::issued_by(&issuer, hosts),
            client: Identity::issued_by(&issuer, &["client"]),
        }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// What a client shows to a server that asks for a certificate.
    pub fn client(&self) -> &Identity {
        &self.client
    }

    /// The files that a server needs: the authority's certificate, its own, and its key.
    pub(super) fn files(&self, dir: &TempDir) -> [String; 3] {
        [
            ("ca.pem", &self.ca),
            ("server.pem", &self.server.certificate),
            ("server.key", &self.server.key),
        ]
        .map(|(name, pem)| {
            let file = dir.path().join(name);
            fs::write(&file, pem).expect("a written PEM file");
            file.into_os_string().into_string().expect("UTF-8")
        })
    }

    /// A server's arguments for TLS on this port, towards its own kind as well.
    pub(super) fn arguments(&self, dir: &TempDir, port: u16) -> Vec<String> {
        let [ca, certificate, key] = self.files(dir);
        let port = port.to_string();
        let arguments = [
            ["--tls-port", &port],
            ["--tls-ca-cert-file", &ca],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-auth-clients", "no"],
            ["--tls-replication", "yes"],
            ["--tls-cluster", "yes"],
        ];
        arguments.concat().into_iter().map(str::to_owned).collect()
    }
}

impl Identity {
    /// For both sides: a server is a client of its own kind.
    fn issued_by(issuer: &Issuer<'_, KeyPair>, hosts: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut certificate = parameters("subject", hosts);
        certificate.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = certificate.signed_by(&key, issuer).expect("a certificate");
        Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// What no certificate does without; one with the name of its issuer would count as self-signed.
fn parameters(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut parameters = CertificateParams::new(hosts).expect("names and addresses");
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Identity, Pki};
    use crate::RedisServer;
    use redis::{
        Client, ClientTlsConfig, RedisResult, TlsCertificates, aio::MultiplexedConnection,
    };

    /// A connection that trusts this authority, past the crate under test.
    pub(crate) async fn connect(
        url: &str,
        trusted: &Pki,
        shown: Option<&Identity>,
    ) -> RedisResult<MultiplexedConnection> {
        let certificates = TlsCertificates {
            client_tls: shown.map(|identity| ClientTlsConfig {
                client_cert: identity.certificate.clone().into(),
                client_key: identity.key.clone().into(),
            }),
            root_cert: Some(trusted.ca().into()),
        };
        Client::build_with_tls(url, certificates)?
            .get_multiplexed_async_connection()
            .await
    }

    #[tokio::test]
    async fn only_the_authority_of_a_server_is_trusted() {
        let pki = Pki::new();
        let server = RedisServer::start_tls(&pki, &[]).await;
        let url = server.url();
        let by_address = url.replace("localhost", "127.0.0.1");
        let stranger = Pki::new();
        for _ in 0..2 {
            ping(&url, &pki, None).await.expect("trusted");
            ping(&by_address, &pki, None).await.expect("trusted");
            let error = ping(&url, &stranger, None).await.expect_err("distrusted");
            assert!(error.to_string().contains("peer certificate"), "{error}");
            // It keeps its certificate.
            server.restart().await;
        }
        let plain = Client::open(url.replace("rediss", "redis")).expect("a URL");
        let plain = plain.get_multiplexed_async_connection().await;
        assert!(plain.is_err(), "no TLS");
    }

    #[tokio::test]
    async fn a_certificate_is_for_its_hosts_only() {
        let pki = Pki::for_hosts(&["elsewhere.test"]);
        let server = RedisServer::start_tls(&pki, &[]).await;
        let error = ping(&server.url(), &pki, None).await.expect_err("no match");
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }

    #[tokio::test]
    async fn a_server_may_insist_on_a_certificate() {
        let pki = Pki::new();
        let server = RedisServer::start_tls(&pki, &["--tls-auth-clients", "yes"]).await;
        let url = server.url();
        ping(&url, &pki, Some(pki.client())).await.expect("trusted");
        ping(&url, &pki, None).await.expect_err("no certificate");
        let stranger = Pki::new();
        let refused = ping(&url, &pki, Some(stranger.client())).await;
        refused.expect_err("distrusted");
    }

    /// Connects and makes a round trip: a server refuses a client's certificate after the handshake.
    async fn ping(url: &str, trusted: &Pki, shown: Option<&Identity>) -> RedisResult<()> {
        let mut connection = connect(url, trusted, shown).await?;
        redis::cmd("PING").query_async(&mut connection).await
    }
}
