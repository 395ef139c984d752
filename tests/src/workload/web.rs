//! Requests, as the Gateway API's conformance suite makes them: a server that answers with what it saw, and a client.

use http::HeaderMap;
use serde_json::{Map, Value, json};

pub(super) mod ask;
pub(super) mod echo;
mod grpc;

/// Names in lower case, each with its values in their order.
fn headers_json(headers: &HeaderMap) -> Value {
    let mut all = Map::new();
    for (name, value) in headers {
        let values = all.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(json!(String::from_utf8_lossy(value.as_bytes())));
        }
    }
    Value::Object(all)
}
