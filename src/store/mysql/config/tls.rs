use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::config_error;
use crate::Error;

/// Validates root certificates, because the driver reports errors in them only when it connects, or never.
pub(super) fn validate(pem: &[u8]) -> Result<(), Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let message = "`tls_roots` is not a list of certificates in PEM";
    let certificates = certificates.map_err(|_| config_error(message))?;
    if certificates.is_empty() {
        return Err(config_error(message));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let message = "a certificate in `tls_roots` is not one of a certificate authority";
        roots.add(certificate).map_err(|_| config_error(message))?;
    }
    Ok(())
}
