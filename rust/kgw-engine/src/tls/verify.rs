//! Whether a peer is who it must be.
//!
//! Chains are verified by webpki, with one addition: a certificate that is itself in the bundle is
//! trusted while it is valid, even one that calls itself an authority. webpki refuses those as leaves;
//! OpenSSL, `BoringSSL` and so Envoy take them, and self-signed certificates usually are of that kind.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};

use super::certificates::Trusted;
use super::names::Wanted;
use super::parameters::signature_schemes;
use super::{ConfigError, provider, x509};
use crate::config::ir::{ClientCertificateMode, ClientTls, ClientValidation, Trust};

// === Servers, as seen by the proxy ===

/// Verifies an endpoint's certificate.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// None trusts anything.
    trusted: Option<Trusted>,
    wanted: Wanted,
    /// Whether `wanted` is empty and the server name counts instead.
    by_server_name: bool,
    /// What signatures of handshakes may be of.
    schemes: Vec<SignatureScheme>,
}

impl ServerVerifier {
    pub(super) fn compile(tls: &ClientTls) -> Result<Self, ConfigError> {
        let trusted = match &tls.trust {
            Trust::System => Some(Trusted::system()?),
            Trust::Ca(pem) => Some(Trusted::bundle(pem)?),
            Trust::Insecure => None,
        };
        let wanted = Wanted::new(&tls.subject_alt_names);
        if trusted.is_some() && wanted.is_empty() && tls.sni.is_none() && !tls.by_host {
            return Err(ConfigError::new(
                "there is neither a server name nor another name to expect of the certificate",
            ));
        }
        Ok(Self {
            trusted,
            by_server_name: wanted.is_empty(),
            wanted,
            schemes: match &*tls.signature_algorithms {
                [] => algorithms().supported_schemes(),
                names => signature_schemes(names)?,
            },
        })
    }
}

impl ServerVerifier {
    /// rustls does not look whether a signature is of an algorithm that was offered.
    fn check_scheme(&self, signature: &DigitallySignedStruct) -> Result<(), Error> {
        if self.schemes.contains(&signature.scheme) {
            return Ok(());
        }
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(leaf)?;
        if !is_trusted_itself(trusted, leaf, now)? {
            let algorithms = algorithms().all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trusted.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.by_server_name {
            verify_server_name(&parsed, server_name)?;
        } else {
            check_names(&self.wanted, leaf)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_scheme(signature)?;
        if self.trusted.is_none() {
            // Whose key it is, is unknown. webpki does not read certificates of version 1 at all.
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_scheme(signature)?;
        if self.trusted.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

// === Clients ===

/// Verifies clients' certificates.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    trusted: Trusted,
    chains: Arc<dyn ClientCertVerifier>,
    wanted: Wanted,
    mode: ClientCertificateMode,
}

impl ClientVerifier {
    pub(super) fn compile(validation: &ClientValidation) -> Result<Self, ConfigError> {
        let trusted = Trusted::bundle(&validation.ca)?;
        let roots = Arc::clone(&trusted.roots);
        let chains = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider()))
            .build()
            .map_err(|error| ConfigError::new(error.to_string()))?;
        Ok(Self {
            trusted,
            chains,
            wanted: Wanted::new(&validation.subject_alt_names),
            mode: validation.mode,
        })
    }

    /// Whether a client with this chain is who it says, whatever the mode.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // What cannot be read proved nothing either: see `is_as_none`.
        ParsedCertificate::try_from(leaf)?;
        if !is_trusted_itself(&self.trusted, leaf, now)? {
            self.chains.verify_client_cert(leaf, intermediates, now)?;
        }
        if self.wanted.is_empty() {
            return Ok(());
        }
        check_names(&self.wanted, leaf)
    }

    /// Whether nothing can be proved with this certificate and the mode tolerates that: webpki cannot
    /// even read it, so that [`verify`](Self::verify) fails for certain.
    fn is_as_none(&self, leaf: &CertificateDer<'_>) -> bool {
        self.mode == ClientCertificateMode::InsecureFallback
            && ParsedCertificate::try_from(leaf).is_err()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mode == ClientCertificateMode::Require
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match self.mode {
            ClientCertificateMode::Require | ClientCertificateMode::Optional => {
                self.chains.root_hint_subjects()
            }
            // Clients choose by the hints what to show; here anything may be.
            ClientCertificateMode::InsecureFallback => &[],
        }
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.mode != ClientCertificateMode::InsecureFallback {
            self.verify(leaf, intermediates, now)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.is_as_none(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.is_as_none(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

// === Both ===

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Whether the bundle holds the very certificate; an error if it does and its time is over.
fn is_trusted_itself(
    trusted: &Trusted,
    leaf: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<bool, Error> {
    let mut certificates = trusted.certificates.iter();
    if !certificates.any(|certificate| certificate == leaf) {
        return Ok(false);
    }
    let parsed = x509::parse(leaf).ok_or(CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(true)
}

fn check_names(wanted: &Wanted, leaf: &CertificateDer<'_>) -> Result<(), Error> {
    let parsed = x509::parse(leaf).ok_or(CertificateError::BadEncoding)?;
    if wanted.includes_one_of(&x509::alternative_names(&parsed)) {
        Ok(())
    } else {
        Err(CertificateError::NotValidForName.into())
    }
}
