use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::Tls;
use crate::{
    Error,
    store::{config::config_error, redis::wire::tls::Connector},
};

/// What all connections of a store share. Nothing is installed for the process.
pub(super) fn connector(tls: &Tls) -> Result<Connector, Error> {
    let name = tls.server_name.clone().map(ServerName::try_from);
    let name = name
        .transpose()
        .map_err(|_| config_error("`tls_server_name` is neither a host name nor an IP address"))?;
    Ok(Connector::new(client_config(tls)?, name))
}

fn client_config(tls: &Tls) -> Result<ClientConfig, Error> {
    let installed = CryptoProvider::get_default().cloned();
    let provider = installed.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| config_error("the crypto provider of the process knows no version of TLS"))?
        .with_root_certificates(roots(tls)?);
    let Some((chain, key)) = &tls.client else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates(chain, "tls_client_certificate")?;
    let message = "the key of `tls_client_certificate` is not a private key in PEM";
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| config_error(message))?;
    let message = "the key of `tls_client_certificate` cannot be used with its certificate";
    let config = config.with_client_auth_cert(chain, key);
    config.map_err(|_| config_error(message))
}

fn roots(tls: &Tls) -> Result<RootCertStore, Error> {
    let Some(pem) = &tls.roots else {
        return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "tls_roots")? {
        let message = "a certificate in `tls_roots` is not one of a certificate authority";
        roots.add(certificate).map_err(|_| config_error(message))?;
    }
    Ok(roots)
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
