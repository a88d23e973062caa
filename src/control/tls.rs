//! TLS of the control plane, in the words of libpq: what is checked for each `sslmode`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::error::ControlError;
use super::params::{Tls, TlsMode};

/// The client's configuration; none when TLS is never used.
pub(crate) fn config(tls: &Tls) -> Result<Option<ClientConfig>, ControlError> {
    if tls.mode == TlsMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(tls, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
    };
    Ok(Some(config))
}

/// Checks the server's certificate as far as the mode wants it.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// None: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Verifier {
    fn new(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Self, ControlError> {
        let checks_name = tls.mode == TlsMode::VerifyFull;
        let is_strict = checks_name || tls.mode == TlsMode::VerifyCa;
        let (chain, roots) = match &tls.roots {
            // Libpq's rule: with roots at hand, `require` checks the issuer as well.
            Some(path) if is_strict || tls.mode == TlsMode::Require => {
                let roots = certificates(path)?;
                let mut store = RootCertStore::empty();
                for root in &roots {
                    store.add(root.clone()).map_err(unusable)?;
                }
                let chain =
                    WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone())
                        .build()
                        .map_err(|error| ControlError::Parameters {
                            what: format!("sslrootcert {}: {error}", path.display()),
                        })?;
                (Some(chain), roots)
            }
            None if is_strict => {
                return Err(ControlError::Parameters {
                    what: "sslmode verify-ca and verify-full need root certificates: give sslrootcert, or \
                           put them into ~/.postgresql/root.crt"
                        .into(),
                });
            }
            _ => (None, Vec::new()),
        };
        Ok(Self {
            provider,
            chain,
            roots,
            checks_name,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        // A certificate that is a root itself, as self-signed ones are: to have it is to trust it.
        if self.roots.iter().any(|root| root == end_entity) {
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let checked =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ControlError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unreadable(path, error))?
        .collect();
    let found = found.map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        return Err(unreadable(path, "no certificate in it"));
    }
    Ok(found)
}

fn unreadable(path: &Path, why: impl ToString) -> ControlError {
    ControlError::Parameters {
        what: format!(
            "{} cannot be used for TLS: {}",
            path.display(),
            why.to_string()
        ),
    }
}

fn unusable(error: Error) -> ControlError {
    ControlError::Parameters {
        what: format!("TLS cannot be set up: {error}"),
    }
}
