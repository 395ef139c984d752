//! `istio.v1.auth.IstioCertificateService` over tonic.

use super::authenticate::Authenticator;
use super::authorise::{Rules, authorise};
use super::keeper::Keeper;
use super::now;
use super::revocations::Revocations;
use super::sign::SignError;
use crate::index::Index;
use crate::observe::{CertificateOutcome, Metrics};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};
use warren_common::proto::auth::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
};
use warren_common::proto::impersonated_identity;

/// Who asks for less gets this: shorter-lived certificates would be renewed all the time. An operator may want just
/// that, so our own lifetime may be shorter.
const SHORTEST: Duration = Duration::from_secs(60);

/// Issues certificates for the pods of the caller's node.
#[derive(Debug)]
pub struct CertificateService {
    /// Who calls.
    pub authenticator: Arc<Authenticator>,
    /// Who may ask for whom.
    pub rules: Rules,
    /// Who runs where.
    pub index: Arc<RwLock<Index>>,
    /// For whom not to sign.
    pub revocations: Arc<Revocations>,
    /// Signs.
    pub keeper: Arc<Keeper>,
    /// Longest lifetime of a certificate.
    pub lifetime: Duration,
    /// Counts.
    pub metrics: Metrics,
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let result = self.create(request).await;
        let outcome = match &result {
            Ok(_) => CertificateOutcome::Issued,
            Err((outcome, status)) => {
                tracing::warn!(reason = status.message(), "certificate refused");
                *outcome
            }
        };
        self.metrics.certificate(outcome);
        result.map(Response::new).map_err(|(_, status)| status)
    }
}

impl CertificateService {
    async fn create(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, (CertificateOutcome, Status)> {
        let caller = self
            .authenticator
            .authenticate(request.metadata())
            .await
            .map_err(|error| (CertificateOutcome::Unauthenticated, error.status()))?;
        let request = request.into_inner();
        let identity = impersonated_identity(&request).map_err(|error| {
            (CertificateOutcome::BadIdentity, Status::invalid_argument(error.to_string()))
        })?;
        authorise(&self.index.read(), &self.rules, &caller.service_account, &caller.node, &identity)
            .map_err(|denied| (CertificateOutcome::Refused, Status::permission_denied(denied.to_string())))?;
        if self.revocations.contains(&identity) {
            let why = format!("{identity} is revoked; `warren ca revoke {identity} --undo` takes that back");
            return Err((CertificateOutcome::Refused, Status::permission_denied(why)));
        }
        let lifetime = self.lifetime(request.validity_duration);
        let ca = self.keeper.current();
        let cert_chain =
            ca.authority.sign(&request.csr, &identity, lifetime, now()).map_err(|error| match error {
                SignError::Request(error) => {
                    (CertificateOutcome::BadCsr, Status::invalid_argument(error.to_string()))
                }
                error => (CertificateOutcome::SignError, Status::internal(error.to_string())),
            })?;
        tracing::info!(%identity, node = %caller.node, lifetime_s = lifetime.as_secs(), "certificate issued");
        Ok(IstioCertificateResponse { cert_chain })
    }

    /// Seconds asked for, within reason and at most ours; nothing asked for is ours.
    fn lifetime(&self, asked_s: i64) -> Duration {
        match u64::try_from(asked_s) {
            Ok(asked) if asked > 0 => Duration::from_secs(asked).max(SHORTEST).min(self.lifetime),
            _ => self.lifetime,
        }
    }
}
