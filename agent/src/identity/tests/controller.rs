use super::fake::{FakeCa, clock, id};
use crate::control::{ControlConfig, Trust};
use crate::identity::keys::{certificate_request, generate};
use crate::identity::{CaError, CertificateAuthority as _, ControllerCa, SignedChain};
use rcgen::{CertificateParams, KeyPair};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use warren_common::proto::auth::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService, IstioCertificateServiceServer,
};
use warren_common::proto::impersonated_identity;

const NAME: &str = "controller.test";

/// Signs for whoever has the token `good`.
struct Handler {
    ca: Arc<FakeCa>,
    validities: Arc<Mutex<Vec<i64>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Handler {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        if request.metadata().get("authorization").unwrap() != "Bearer good" {
            return Err(Status::unauthenticated("the token is not good"));
        }
        let request = request.into_inner();
        let identity = impersonated_identity(&request).unwrap();
        self.validities.lock().unwrap().push(request.validity_duration);
        let chain = self.ca.sign(&identity, request.csr, Duration::ZERO).await.unwrap();
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![chain.pem] }))
    }
}

#[tokio::test]
async fn the_controller_signs_for_the_token_of_now_and_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path("ca.pem"), certificate.pem()).unwrap();
    std::fs::write(path("token"), "bad").unwrap();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("https://{}", incoming.local_addr().unwrap());
    let validities = Arc::default();
    let handler = Handler { ca: FakeCa::new(clock()), validities: Arc::clone(&validities) };
    let server = Server::builder()
        .tls_config(
            ServerTlsConfig::new().identity(Identity::from_pem(certificate.pem(), key.serialize_pem())),
        )
        .unwrap()
        .add_service(IstioCertificateServiceServer::new(handler));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });

    let config = ControlConfig {
        url,
        controller_name: NAME.to_owned(),
        trust: Trust::new(path("ca.pem"), None),
        token_file: path("token"),
    };
    let ca = ControllerCa::new(config);
    let csr = || certificate_request(&generate().unwrap(), &id("cart")).unwrap();
    let refused = ca.sign(&id("cart"), csr(), Duration::from_secs(90)).await.unwrap_err();
    let expected = Code::Unauthenticated.description();
    assert!(
        matches!(&refused, CaError::Refused { code, message } if code == expected && message.contains("not good")),
        "{refused}"
    );
    std::fs::write(path("token"), "good").unwrap();
    for _ in 0..2 {
        let chain = ca.sign(&id("cart"), csr(), Duration::from_secs(90)).await.unwrap();
        assert_eq!(chain.certificates.len(), 3);
    }
    assert_eq!(*validities.lock().unwrap(), [90, 90]);
}

#[test]
fn what_is_no_chain_is_refused() {
    for bad in ["", "hello", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(SignedChain::from_pem(bad.to_owned()), Err(CaError::Malformed(_))), "{bad:?}");
    }
    let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    assert!(SignedChain::from_pem(certificate.repeat(16)).is_ok());
    assert!(SignedChain::from_pem(certificate.repeat(17)).is_err());
}
