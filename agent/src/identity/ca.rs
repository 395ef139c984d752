//! The authority that signs, and the controller as one (`istio.v1.auth.IstioCertificateService`).

use crate::control::{ControlChannel, ControlConfig, ControlError, connect};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use warren_common::model::Identity;
use warren_common::proto::auth::IstioCertificateServiceClient;
use warren_common::proto::certificate_request;

/// The controller answers within this, or the try has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// A channel serves a burst of requests; afterwards CA file and token are read again.
const CHANNEL_AGE: Duration = Duration::from_secs(60);
/// No sane chain is longer.
const MAX_CHAIN: usize = 16;

/// What [`CertificateAuthority::sign`] returns.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<SignedChain, CaError>> + Send + 'a>>;

/// Signs certificates for the identities of this node.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Asks for a certificate of `identity` over the key of `csr_pem`, valid for `validity` if the authority agrees.
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: String, validity: Duration) -> Signing<'a>;
}

/// Why an authority gave no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// It cannot be reached.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It answered with an error.
    #[error("the CA refused: {code}: {message}")]
    Refused {
        /// gRPC code, in words.
        code: String,
        /// What it said.
        message: String,
    },
    /// It did not answer.
    #[error("the CA did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    /// What it sent is not a certificate chain.
    #[error("the CA's answer is not a chain of 1 to {MAX_CHAIN} PEM certificates: {0}")]
    Malformed(String),
}

/// Certificates as an authority sends them: leaf first. Not yet checked in any way.
#[derive(Clone, Debug)]
pub struct SignedChain {
    pub(super) pem: String,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl SignedChain {
    /// Reads the certificates of a PEM text.
    ///
    /// # Errors
    /// [`CaError::Malformed`] when it holds none, too many, or is no PEM.
    pub fn from_pem(pem: String) -> Result<Self, CaError> {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).take(MAX_CHAIN + 1).collect();
        let certificates = certificates.map_err(|error| CaError::Malformed(error.to_string()))?;
        if certificates.is_empty() || certificates.len() > MAX_CHAIN {
            return Err(CaError::Malformed(format!("{} certificates", certificates.len())));
        }
        Ok(Self { pem, certificates })
    }
}

/// The controller's CA.
#[derive(Debug)]
pub struct ControllerCa {
    config: ControlConfig,
    channel: Mutex<Option<(Instant, ControlChannel)>>,
}

impl ControllerCa {
    /// A client of the controller that `config` names; connects when the first certificate is asked for.
    pub fn new(config: ControlConfig) -> Self {
        Self { config, channel: Mutex::default() }
    }

    async fn channel(&self) -> Result<ControlChannel, ControlError> {
        let mut held = self.channel.lock().await;
        match &*held {
            Some((since, channel)) if since.elapsed() < CHANNEL_AGE => Ok(channel.clone()),
            _ => {
                *held = None;
                let channel = connect(&self.config).await?;
                *held = Some((Instant::now(), channel.clone()));
                Ok(channel)
            }
        }
    }

    async fn request(
        &self,
        identity: &Identity,
        csr_pem: String,
        validity: Duration,
    ) -> Result<SignedChain, CaError> {
        let channel = self.channel().await?;
        let validity_s = i64::try_from(validity.as_secs()).unwrap_or(i64::MAX);
        let request = certificate_request(identity, csr_pem, validity_s);
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        let answer = answer.map_err(|status| CaError::Refused {
            code: status.code().description().to_owned(),
            message: status.message().chars().take(500).collect(),
        })?;
        SignedChain::from_pem(answer.into_inner().cert_chain.join("\n"))
    }
}

impl CertificateAuthority for ControllerCa {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: String, validity: Duration) -> Signing<'a> {
        Box::pin(async move {
            let answer = timeout(DEADLINE, self.request(identity, csr_pem, validity)).await;
            let answer = answer.unwrap_or(Err(CaError::Timeout));
            if answer.is_err() {
                // Whatever was wrong, the next try begins with a new connection and the files of then.
                *self.channel.lock().await = None;
            }
            answer
        })
    }
}
