//! A delta-ADS client.

use super::server::{Server, authorised, soon};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use warren_common::model::{TrustBundle, TrustReport};
use warren_common::proto::discovery::{
    AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node,
    Status as Rejection,
};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, TRAFFIC_TYPE_URL, TRUST_TYPE_URL, decode_address,
    decode_authorization, decode_envelope, decode_traffic, decode_trust, traffic_name, trust_report_fields,
};

/// A delta-ADS client that acknowledges what it is told.
pub struct Agent {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// Name to version and content.
    pub holds: BTreeMap<String, (String, String)>,
    /// The last bundle of roots.
    pub trust: Option<TrustBundle>,
}

impl Agent {
    pub async fn open(
        server: &Server,
        bearer: Option<&str>,
        type_url: &str,
        subscribe: &[&str],
        held: &BTreeMap<String, String>,
    ) -> Result<Self, Status> {
        let first = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names(subscribe),
            initial_resource_versions: held.clone().into_iter().collect(),
            ..Default::default()
        };
        Self::begin(server, bearer, first).await
    }

    /// One that asks for nothing yet.
    pub async fn by_interest(server: &Server, bearer: Option<&str>) -> Result<Self, Status> {
        Self::begin(server, bearer, change(&["*"], &["*"])).await
    }

    async fn begin(
        server: &Server,
        bearer: Option<&str>,
        first: DeltaDiscoveryRequest,
    ) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(16);
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(server.channel().await);
        let request = authorised(bearer, ReceiverStream::new(stream));
        let responses = soon("the stream", client.delta_aggregated_resources(request)).await?.into_inner();
        Ok(Self { requests, responses, holds: BTreeMap::new(), trust: None })
    }

    /// Subscribes and unsubscribes.
    pub async fn change(&self, subscribe: &[&str], unsubscribe: &[&str]) {
        self.requests.send(change(subscribe, unsubscribe)).await.unwrap();
    }

    /// Says by which bundle it verifies and whose certificates it has.
    pub async fn report(&self, bundle: &str, signer: &str) {
        let report = TrustReport { bundles: [bundle.to_owned()].into(), signers: [signer.to_owned()].into() };
        let metadata = prost_types::Struct { fields: trust_report_fields(&report).into() };
        let node = Node { metadata: Some(metadata), ..Node::default() };
        let type_url = TRUST_TYPE_URL.to_owned();
        let request = DeltaDiscoveryRequest { type_url, node: Some(node), ..Default::default() };
        self.requests.send(request).await.unwrap();
    }

    /// The next bundle of roots that differs from what it was told before.
    pub async fn next_trust(&mut self) -> TrustBundle {
        let before = self.trust.clone();
        while self.trust == before {
            self.next().await;
        }
        self.trust.clone().unwrap()
    }

    pub fn versions(&self) -> BTreeMap<String, String> {
        self.holds.iter().map(|(name, (version, _))| (name.clone(), version.clone())).collect()
    }

    /// The names of the next response: changed and removed, each sorted.
    pub async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let response = self.receive().await;
        let (mut changed, mut removed) = (Vec::new(), response.removed_resources);
        for resource in response.resources {
            let resource = decode_envelope(resource).unwrap();
            let content = resource.resource.unwrap();
            let (name, shown) = match content.type_url.as_str() {
                AUTHORIZATION_TYPE_URL => {
                    let policy = decode_authorization(&content.value).unwrap();
                    (policy.name.to_string(), format!("{policy:?}"))
                }
                TRAFFIC_TYPE_URL => {
                    let traffic = decode_traffic(&content.value).unwrap();
                    (traffic_name(&traffic.service), format!("{traffic:?}"))
                }
                TRUST_TYPE_URL => {
                    let bundle = decode_trust(&content.value).unwrap();
                    self.trust = Some(bundle.clone());
                    (resource.name.clone(), format!("{bundle:?}"))
                }
                _ => {
                    let address = decode_address(&content.value).unwrap();
                    (address.name(), format!("{address:?}"))
                }
            };
            assert_eq!(name, resource.name);
            self.holds.insert(name, (resource.version, shown));
            changed.push(resource.name);
        }
        removed.iter().for_each(|name| drop(self.holds.remove(name)));
        changed.sort();
        removed.sort();
        self.answer(response.type_url, response.nonce, None).await;
        (changed, removed)
    }

    pub async fn reject_next(&mut self) {
        let response = self.receive().await;
        let rejection = Rejection { code: 3, message: "not this one".to_owned(), ..Default::default() };
        self.answer(response.type_url, response.nonce, Some(rejection)).await;
    }

    async fn receive(&mut self) -> DeltaDiscoveryResponse {
        soon("a response", self.responses.message()).await.unwrap().expect("the stream goes on")
    }

    async fn answer(&self, type_url: String, response_nonce: String, error_detail: Option<Rejection>) {
        let answer = DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() };
        self.requests.send(answer).await.unwrap();
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn change(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ADDRESS_TYPE_URL.to_owned(),
        resource_names_subscribe: names(subscribe),
        resource_names_unsubscribe: names(unsubscribe),
        ..Default::default()
    }
}
