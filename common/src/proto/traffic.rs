//! `warren.v1.Traffic`: routes and policies of one service.
//!
//! JSON within the message: its many types are the model's own, and what an agent does not know it must not leave out.

use super::error::WireError;
use super::generated::warren as wire;
use crate::model::ServiceName;
use crate::model::traffic::Traffic;
use prost::Message;

/// Type URL of routes and policies on the wire.
pub const TRAFFIC_TYPE_URL: &str = "type.googleapis.com/warren.v1.Traffic";

/// The resource's name: `namespace/hostname`.
pub fn traffic_name(service: &ServiceName) -> String {
    service.to_string()
}

/// Encodes what is said about one service.
pub fn encode_traffic(traffic: &Traffic) -> Vec<u8> {
    // Texts, numbers and lists of them; no map with keys that JSON cannot have: writing them can't fail.
    let json = serde_json::to_vec(traffic).unwrap_or_default();
    wire::Traffic { json }.encode_to_vec()
}

/// Decodes what is said about one service.
///
/// # Errors
/// When the bytes are no message, or say something that is not known here.
pub fn decode_traffic(bytes: &[u8]) -> Result<Traffic, WireError> {
    let wire::Traffic { json } = wire::Traffic::decode(bytes)?;
    serde_json::from_slice(&json).map_err(|error| WireError::Invalid {
        field: "json",
        value: error.to_string(),
        expected: "a Traffic that is known here",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::traffic::{
        Backend, Destination, Forward, HeaderChanges, HttpAction, HttpMatch, HttpRule, PathMatch, PortPolicy,
        RouteApi, RouteTable, Rules, ScopedPolicy, TrafficPolicy,
    };

    fn traffic() -> Traffic {
        let service =
            ServiceName { namespace: "shop".into(), hostname: "cart.shop.svc.cluster.local".into() };
        let to = Destination::Service { service: service.clone(), port: 80, subset: Some("v1".into()) };
        let backend = Backend {
            to,
            weight: 1,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            rewrite: None,
            redirect: None,
            mirrors: vec![],
        };
        let path = Some(PathMatch::Prefix("/v1".into()));
        let rule = HttpRule {
            name: "first".into(),
            matches: vec![HttpMatch { path, ..HttpMatch::default() }],
            action: HttpAction::Forward(Box::new(Forward { backends: vec![backend], ..Forward::default() })),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            cors: None,
        };
        let table = RouteTable {
            clients: Default::default(),
            ports: None,
            api: RouteApi::Istio,
            objects: vec![],
            rules: Rules { http: Some(vec![rule]), ..Rules::default() },
        };
        let ports = [(80, PortPolicy::default())].into();
        let policy = ScopedPolicy {
            clients: Default::default(),
            objects: vec![],
            policy: TrafficPolicy { ports, ..TrafficPolicy::default() },
            subsets: vec![],
        };
        Traffic { service, tables: vec![table], policies: vec![policy], refused: None }
    }

    #[test]
    fn it_survives_the_wire() {
        let traffic = traffic();
        assert_eq!(decode_traffic(&encode_traffic(&traffic)).unwrap(), traffic);
        assert_eq!(traffic_name(&traffic.service), "shop/cart.shop.svc.cluster.local");
    }

    #[test]
    fn what_is_not_known_is_not_left_out() {
        let message = wire::Traffic::decode(&*encode_traffic(&traffic())).unwrap();
        let json = String::from_utf8(message.json).unwrap().replacen("\"path\"", "\"planet\"", 1);
        let more = wire::Traffic { json: json.into_bytes() }.encode_to_vec();
        let error = decode_traffic(&more).unwrap_err().to_string();
        assert!(error.contains("planet"), "{error}");
        assert!(decode_traffic(&[0xff]).is_err());
        assert!(decode_traffic(&[]).is_err());
    }
}
