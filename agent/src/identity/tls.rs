//! The TLS of tunnels: 1.3 only, both sides with certificates, post-quantum key exchange first.
//!
//! aws-lc-rs is named explicitly everywhere: the process has no default provider to be surprised by.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::server::{ParsedCertificate, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, KeyLog, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::{Arc, LazyLock};

/// HBONE's first form: streams of a shared tunnel.
const SHARED: &[u8] = b"h2";
/// The second: a tunnel for one connection.
const DEDICATED: &[u8] = b"http/1.1";
/// Sessions kept for resumption, per identity and side. One holds the peer's chain: about 2 KB.
const SESSIONS: usize = 256;

/// Bytes that a session may hold encrypted before they are written: a whole frame of the tunnel goes out in one
/// system call.
const WRITE_BEHIND: usize = 256 << 10;

/// Prepares a session, of either side, for the bulk of a tunnel; after the handshake.
pub fn widen<Side>(session: &mut rustls::ConnectionCommon<Side>) {
    session.set_buffer_limit(Some(WRITE_BEHIND));
}

/// For one handshake that asks for a tunnel of its own; `secrets` hears its traffic secrets. A peer that knows only the
/// first form picks that.
pub fn for_dedicated(config: &ClientConfig, secrets: Arc<dyn KeyLog>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![DEDICATED.to_vec(), SHARED.to_vec()];
    config.key_log = secrets;
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// For one handshake with whoever connects; which form it is for is theirs to say.
pub fn for_either(config: &ServerConfig, secrets: Arc<dyn KeyLog>) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.key_log = secrets;
    config.enable_secret_extraction = true;
    Arc::new(config)
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        // AES-128 first: with AES instructions it costs a quarter less per byte than AES-256, and both are out of reach.
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        // What is recorded today must not be readable by a quantum computer of tomorrow.
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// What a side proves itself with. The key is read from bytes that stay the caller's, who wipes them.
fn own(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<Arc<SingleCertAndKey>, Error> {
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(key)?);
    certified.keys_match()?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// The side that opens tunnels. Resumption is on; who the peer is must be read from its certificate afterwards.
pub(super) fn client_config(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
    roots: Arc<RootCertStore>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots }))
        .with_client_cert_resolver(own(chain, key)?);
    config.alpn_protocols = vec![SHARED.to_vec()];
    // The name is only a key of the session cache; peers are known by identity.
    config.enable_sni = false;
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// The side that accepts tunnels. A client without a certificate is refused.
pub(super) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
    roots: Arc<RootCertStore>,
) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, PROVIDER.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own(chain, key)?);
    config.alpn_protocols = vec![DEDICATED.to_vec(), SHARED.to_vec()];
    // Stateful: a session dies with this configuration, that is when the certificate is renewed.
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Checks that a leaf leads to `roots` at `now`, whatever its names.
pub(super) fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let algorithms = PROVIDER.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        roots,
        intermediates,
        now,
        algorithms,
    )
}

/// Verifies a server's chain to our roots. Tunnels go to addresses, so there is no DNS name to check: who the server
/// is stands in its SPIFFE identity, which the story compares with the destination's.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(leaf, intermediates, &self.roots, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
