//! Messages of the wire, and their typed conversion to and from [`crate::model`].
//!
//! Generated code stays in here: other crates name messages through this module and never build upon their
//! layout. Conversions from the wire check everything; what they return needs no second look.

mod address;
mod authorization;
mod ca;
mod envelope;
mod error;
mod extension;
mod namespace;
mod peer_authentication;
mod revocations;
mod steering;
mod traffic;
mod trust;

pub use address::{ADDRESS_TYPE_URL, MeshResource, decode_address, encode_address};
pub use authorization::{
    AUTHORIZATION_TYPE_URL, decode_authorization, encode_authorization, scope_of_authorization, ztunnel_form,
};
pub use ca::{IMPERSONATED_IDENTITY, certificate_request, impersonated_identity};
pub use envelope::{MORE_FOLLOWS, decode_envelope, encode_envelope};
pub use error::WireError;
pub use namespace::{NAMESPACE_TYPE_URL, decode_namespace, encode_namespace};
pub use revocations::{REVOCATIONS, REVOCATIONS_TYPE_URL, decode_revocations, encode_revocations};
pub use traffic::{TRAFFIC_TYPE_URL, decode_traffic, encode_traffic, traffic_name};
pub use trust::{TRUST, TRUST_TYPE_URL, decode_trust, encode_trust, trust_report, trust_report_fields};

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod generated {
    pub mod discovery {
        tonic::include_proto!("envoy.service.discovery.v3");
    }
    pub mod security {
        tonic::include_proto!("istio.security");
    }
    pub mod workload {
        tonic::include_proto!("istio.workload");
    }
    pub mod auth {
        tonic::include_proto!("istio.v1.auth");
    }
    pub mod warren {
        tonic::include_proto!("warren.v1");
    }
}

/// Delta ADS (`envoy.service.discovery.v3`).
pub mod discovery {
    pub use super::generated::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
    pub use super::generated::discovery::aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    };
    pub use super::generated::discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status,
    };
}

/// Certificate issuance (`istio.v1.auth`).
pub mod auth {
    pub use super::generated::auth::istio_certificate_service_client::IstioCertificateServiceClient;
    pub use super::generated::auth::istio_certificate_service_server::{
        IstioCertificateService, IstioCertificateServiceServer,
    };
    pub use super::generated::auth::{IstioCertificateRequest, IstioCertificateResponse};
}
