//! What a cluster adds to a case's Services: addresses, and EndpointSlices of the pods behind them.

use serde_json::{Value, json};
use warren_tests::lab::Pod;

/// Makes all of a case's services lead to these pods.
pub(crate) fn fill(objects: &mut Vec<Value>, pods: &[Pod]) {
    let mut made = Vec::new();
    for (number, object) in objects.iter_mut().enumerate() {
        match object["kind"].as_str() {
            Some("EndpointSlice") => object["endpoints"] = endpoints(pods, object["addressType"] == "IPv4"),
            Some("Service") => {
                if object["spec"]["clusterIP"].is_null() {
                    object["spec"]["clusterIP"] = json!(format!("10.96.255.{number}"));
                }
                // Of a service without selector somebody else makes them.
                if object["spec"]["selector"].is_object() {
                    made.push(slice(object, pods));
                }
            }
            _ => {}
        }
    }
    objects.extend(made);
}

fn slice(service: &Value, pods: &[Pod]) -> Value {
    let port = &service["spec"]["ports"][0];
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service["metadata"]["name"],
            "namespace": service["metadata"]["namespace"],
            "labels": { "kubernetes.io/service-name": service["metadata"]["name"] },
        },
        "addressType": "IPv4",
        "endpoints": endpoints(pods, true),
        "ports": [{ "name": port["name"], "port": port["targetPort"], "protocol": "TCP" }],
    })
}

fn endpoints(pods: &[Pod], ipv4: bool) -> Value {
    let endpoint = |pod: &Pod| {
        let address = if ipv4 { pod.ip4().to_string() } else { pod.ip6().to_string() };
        json!({
            "addresses": [address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": pod.node(),
            "targetRef": { "kind": "Pod", "name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid() },
        })
    };
    pods.iter().map(endpoint).collect()
}
