use redis::{Client, ClientTlsConfig, ConnectionAddr, TlsCertificates};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::Tls;
use crate::{Error, store::config::config_error};

/// What makes TLS connections, with an address that does not count.
pub(super) fn transport(tls: &Tls) -> Result<ConnectionAddr, Error> {
    // The client asks for the process's provider, and there is none until somebody installs one. It fails only
    // if somebody just did.
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    validate(tls)?;
    let client = tls.client.clone();
    let certificates = TlsCertificates {
        client_tls: client.map(|(client_cert, client_key)| ClientTlsConfig {
            client_cert,
            client_key,
        }),
        root_cert: tls.roots.clone(),
    };
    let client = Client::build_with_tls("rediss://localhost", certificates)
        .map_err(|_| config_error("the certificates for Redis cannot be used"))?;
    Ok(client.get_connection_info().addr().clone())
}

/// Finds what the client would only find when it connects, or never.
fn validate(tls: &Tls) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &tls.roots {
        for certificate in certificates(pem, "tls_roots")? {
            let message = "a certificate in `tls_roots` is not one of a certificate authority";
            roots.add(certificate).map_err(|_| config_error(message))?;
        }
    }
    if let Some((chain, key)) = &tls.client {
        let chain = certificates(chain, "tls_client_certificate")?;
        let message = "the key of `tls_client_certificate` is not a private key in PEM";
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| config_error(message))?;
        let message = "the key of `tls_client_certificate` cannot be used with its certificate";
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|_| config_error(message))?;
    }
    Ok(())
}

/// At least one.
fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(config_error(format!(
            "`{name}` is not a list of certificates in PEM"
        ))),
    }
}
