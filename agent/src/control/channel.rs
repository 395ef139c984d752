//! The authenticated channel to the controller: TLS against its CA, the agent's token on every request.

use super::trust::{Trust, TrustError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// The name in the controller's certificate, unless configured otherwise.
pub const DEFAULT_CONTROLLER_NAME: &str = "warren-controller.warren-system.svc";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
// A peer that vanished without a word is noticed after both: within 20 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel whose requests carry the agent's token.
pub type ControlChannel = InterceptedService<Channel, BearerToken>;

/// Where the controller is and how both sides prove themselves.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// `https://host:port`.
    pub url: String,
    /// The name that its certificate must carry, whatever the URL says; see [`DEFAULT_CONTROLLER_NAME`].
    pub controller_name: String,
    /// What its certificate must lead to.
    pub trust: Trust,
    /// The service account token of the agent.
    pub token_file: PathBuf,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The URL does not parse, or would send the token in the clear.
    #[error("the controller's URL {url:?} must have the form https://host:port")]
    Url {
        /// What was configured.
        url: String,
    },
    /// A file cannot be read.
    #[error("cannot read the {what} {}: {source}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is nothing to verify it by.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The token file holds no token.
    #[error("{} does not hold a token: empty, or characters that no header can carry", path.display())]
    Token {
        /// Which file.
        path: PathBuf,
    },
    /// No connection, or the TLS handshake failed.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// Where to.
        url: String,
        /// The chain of causes.
        reason: String,
    },
}

/// Connects, with the roots and the token of now: both are rotated while the agent runs.
///
/// # Errors
/// [`ControlError`], naming the file or the peer at fault.
pub async fn connect(config: &ControlConfig) -> Result<ControlChannel, ControlError> {
    let url = || ControlError::Url { url: config.url.clone() };
    let endpoint = Endpoint::from_shared(config.url.clone()).map_err(|_| url())?;
    if endpoint.uri().scheme_str() != Some("https") {
        return Err(url());
    }
    let anchors = config.trust.refresh().await?;
    let token = read("token", &config.token_file).await?;
    let token =
        BearerToken::new(&token).ok_or_else(|| ControlError::Token { path: config.token_file.clone() })?;
    let failed = |error: tonic::transport::Error| ControlError::Connect {
        url: config.url.clone(),
        reason: causes(&error),
    };
    let tls = ClientTlsConfig::new()
        .domain_name(&config.controller_name)
        .trust_anchors(anchors.anchors())
        .timeout(CONNECT_TIMEOUT);
    let channel = endpoint
        .tls_config(tls)
        .map_err(failed)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(failed)?;
    Ok(InterceptedService::new(channel, token))
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ControlError> {
    let failed = |source| ControlError::File { what, path: path.to_owned(), source };
    tokio::fs::read(path).await.map_err(failed)
}

/// An error and everything that caused it, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Adds `authorization: Bearer ...` to every request. Never printed.
#[derive(Clone)]
pub struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    fn new(text: &[u8]) -> Option<Self> {
        let token = std::str::from_utf8(text).ok()?.trim();
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().ok()?;
        value.set_sensitive(true);
        (!token.is_empty()).then_some(Self(value))
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_trimmed_checked_and_never_printed() {
        let token = BearerToken::new(b"abc.def\n").unwrap();
        assert_eq!(token.0.to_str().unwrap(), "Bearer abc.def");
        assert!(token.0.is_sensitive());
        assert!(!format!("{token:?}").contains("abc"));
        for bad in [&b""[..], b" \n", b"a\nb", b"\xff"] {
            assert!(BearerToken::new(bad).is_none(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn errors_name_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let (ca_file, token_file) = (folder.path().join("ca.pem"), folder.path().join("token"));
        let mut config = ControlConfig {
            url: "http://127.0.0.1:1".to_owned(),
            controller_name: DEFAULT_CONTROLLER_NAME.to_owned(),
            trust: Trust::new(ca_file.clone(), None),
            token_file: token_file.clone(),
        };
        assert!(
            matches!(connect(&config).await, Err(ControlError::Url { .. })),
            "never the token in the clear"
        );
        config.url = "https://127.0.0.1:1".to_owned();
        assert!(matches!(connect(&config).await, Err(ControlError::Trust(TrustError::Read { .. }))));
        std::fs::write(&ca_file, "").unwrap();
        assert!(matches!(connect(&config).await, Err(ControlError::Trust(TrustError::Content { .. }))));
        let own = rcgen::CertificateParams::default().self_signed(&rcgen::KeyPair::generate().unwrap());
        std::fs::write(&ca_file, own.unwrap().pem()).unwrap();
        assert!(matches!(connect(&config).await, Err(ControlError::File { what: "token", .. })));
        std::fs::write(&token_file, "\n").unwrap();
        assert!(matches!(connect(&config).await, Err(ControlError::Token { .. })));
        std::fs::write(&token_file, "abc").unwrap();
        let refused = connect(&config).await.unwrap_err();
        assert!(
            matches!(refused, ControlError::Connect { .. }) && refused.to_string().contains("refused"),
            "{refused}"
        );
    }
}
