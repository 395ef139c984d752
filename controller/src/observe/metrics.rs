//! Metrics under the names that istiod's dashboards ask for, and `warren_*` for what they lack.

use crate::source::SourceProblems;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::{MetricType, TypedMetric, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter whose name gets no `_total` appended: istiod's `pilot_xds_pushes` has none.
#[derive(Clone, Debug, Default)]
struct PlainCounter(Arc<AtomicU64>);

impl PlainCounter {
    fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl EncodeMetric for PlainCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.0.load(Ordering::Relaxed))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for PlainCounter {
    const TYPE: MetricType = MetricType::Unknown;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: String,
}

/// Every metric of the controller. Cloning is cheap and shares the counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    clients: Gauge,
    pushes: Family<TypeLabel, PlainCounter>,
    rejects: Family<TypeLabel, PlainCounter>,
    pods: Gauge,
    services: Gauge,
    problems: Gauge,
    leader: Gauge,
    csrs: PlainCounter,
    issued: PlainCounter,
    unauthenticated: PlainCounter,
    bad_csrs: PlainCounter,
    bad_identities: PlainCounter,
    refused: PlainCounter,
    sign_errors: PlainCounter,
    root_expiry: Gauge,
    chain_expiry: Gauge,
    phase: Family<PhaseLabel, Gauge>,
}

/// Counts a connected agent until it is dropped.
#[derive(Debug)]
pub struct ClientGuard(Gauge);

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let metrics = Self {
            clients: gauge(r, "pilot_xds", "Agents connected"),
            pushes: family(r, "pilot_xds_pushes", "Responses sent, by type of resource"),
            rejects: family(r, "pilot_total_xds_rejects", "Responses that agents rejected"),
            pods: gauge(r, "warren_pods", "Pods known"),
            services: gauge(r, "pilot_services", "Services known"),
            problems: gauge(
                r,
                "warren_source_problems",
                "Things that are wrong with the configuration right now",
            ),
            leader: gauge(r, "warren_controller_leader", "1 on the replica that writes to the cluster"),
            csrs: counter(r, "citadel_server_csr_count", "Certificate requests received"),
            issued: counter(r, "citadel_server_success_cert_issuance_count", "Certificates issued"),
            unauthenticated: counter(
                r,
                "citadel_server_authentication_failure_count",
                "Certificate requests without a valid token",
            ),
            bad_csrs: counter(
                r,
                "citadel_server_csr_parsing_err_count",
                "Certificate requests that are malformed",
            ),
            bad_identities: counter(
                r,
                "citadel_server_id_extraction_err_count",
                "Certificate requests that name no identity",
            ),
            refused: counter(
                r,
                "warren_ca_refused_identities",
                "Certificate requests for an identity that the caller may not have",
            ),
            sign_errors: counter(
                r,
                "citadel_server_csr_sign_err_count",
                "Certificates that could not be signed",
            ),
            root_expiry: gauge(
                r,
                "citadel_server_root_cert_expiry_timestamp",
                "End of the root, Unix seconds",
            ),
            chain_expiry: gauge(
                r,
                "citadel_server_cert_chain_expiry_timestamp",
                "End of the signing CA, Unix seconds",
            ),
            phase: {
                let phase = Family::<PhaseLabel, Gauge>::default();
                r.register("warren_ca_rotation", "1 at the phase that the CA is in", phase.clone());
                phase
            },
            registry: Arc::default(),
        };
        Self { registry: Arc::new(Mutex::new(registry)), ..metrics }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> PlainCounter {
    let counter = PlainCounter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn family(registry: &mut Registry, name: &str, help: &str) -> Family<TypeLabel, PlainCounter> {
    let family = Family::<TypeLabel, PlainCounter>::default();
    registry.register(name, help, family.clone());
    family
}

impl Metrics {
    /// An agent's stream began.
    pub fn client_connected(&self) -> ClientGuard {
        self.clients.inc();
        ClientGuard(self.clients.clone())
    }

    /// A response was sent.
    pub fn pushed(&self, type_url: &str) {
        self.pushes.get_or_create(&type_label(type_url)).inc();
    }

    /// A response was rejected.
    pub fn rejected(&self, type_url: &str) {
        self.rejects.get_or_create(&type_label(type_url)).inc();
    }

    /// How much is known.
    pub fn indexed(&self, pods: usize, services: usize) {
        self.pods.set(pods as i64);
        self.services.set(services as i64);
    }

    /// Whether this replica writes to the cluster.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// When root and signing CA end (Unix seconds).
    pub fn ca_expiry(&self, root: i64, signing: i64) {
        self.root_expiry.set(root);
        self.chain_expiry.set(signing);
    }

    /// Where the CA stands.
    pub fn ca_phase(&self, phase: &'static str) {
        for one in ["steady", "distributing", "renewing", "dropping"] {
            self.phase.get_or_create(&PhaseLabel { phase: one }).set(i64::from(one == phase));
        }
    }

    /// How a certificate request went.
    pub(crate) fn certificate(&self, outcome: CertificateOutcome) {
        self.csrs.inc();
        match outcome {
            CertificateOutcome::Issued => &self.issued,
            CertificateOutcome::Unauthenticated => &self.unauthenticated,
            CertificateOutcome::BadIdentity => &self.bad_identities,
            CertificateOutcome::Refused => &self.refused,
            CertificateOutcome::BadCsr => &self.bad_csrs,
            CertificateOutcome::SignError => &self.sign_errors,
        }
        .inc();
    }

    /// All of them as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a String does not fail.
    pub fn encode(&self, problems: &SourceProblems) -> Result<String, std::fmt::Error> {
        self.problems.set(problems.count() as i64);
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

/// How a certificate request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateOutcome {
    Issued,
    Unauthenticated,
    BadIdentity,
    Refused,
    BadCsr,
    SignError,
}

/// Clients choose type URLs: only those that we serve become labels.
fn type_label(type_url: &str) -> TypeLabel {
    let r#type = match type_url {
        warren_common::proto::ADDRESS_TYPE_URL => "address",
        warren_common::proto::AUTHORIZATION_TYPE_URL => "authorization",
        warren_common::proto::TRAFFIC_TYPE_URL => "traffic",
        _ => "other",
    };
    TypeLabel { r#type: r#type.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_dashboards_ask_for_them() {
        let metrics = Metrics::default();
        metrics.pushed(warren_common::proto::ADDRESS_TYPE_URL);
        metrics.rejected("made-up");
        let client = metrics.client_connected();
        metrics.certificate(CertificateOutcome::Issued);
        let text = metrics.encode(&SourceProblems::default()).unwrap();
        for line in [
            "pilot_xds 1",
            "pilot_xds_pushes{type=\"address\"} 1",
            "pilot_total_xds_rejects{type=\"other\"} 1",
            "citadel_server_csr_count 1",
            "citadel_server_success_cert_issuance_count 1",
            "warren_source_problems 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        drop(client);
        assert!(metrics.encode(&SourceProblems::default()).unwrap().contains("pilot_xds 0"));
    }
}
