//! What manifests leave to a cluster, made up so that they can be looked at without one: pods of Deployments and their like,
//! endpoints of services, namespaces. Pure.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use warren_controller::objects::Object;
use warren_controller::source::ServedKind;

/// For measurements (RFC 2544): nobody has these addresses. Of pods, and of services.
const FIRST_POD: [u8; 4] = [198, 18, 0, 1];
const FIRST_SERVICE: [u8; 4] = [198, 19, 0, 1];
/// Names in a note, at most.
const NAMED: usize = 3;
/// On a slice: the service that it is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is made up.
#[derive(Debug, Default)]
pub(crate) struct Sketch {
    pub(crate) objects: Vec<Object>,
    /// What is to be known of it.
    pub(crate) notes: Vec<String>,
}

impl Sketch {
    /// For these objects, each with its namespace.
    pub(crate) fn of(values: &[Value]) -> Self {
        let mut sketch = Self::default();
        let (made, from) = made_pods(values);
        sketch.note(&from, "no pod runs yet: one stands for", "");
        let namespaces = unsaid_namespaces(values);
        let named: Vec<_> = namespaces.iter().cloned().collect();
        sketch.note(&named, "the files have no Namespace", ": taken for one that is in the mesh");
        let namespaces = namespaces.into_iter().map(|name| {
            let metadata = json!({"name": name, "labels": {"warren.dev/mesh": "enabled"}});
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        });
        let given = values.iter().filter(|value| value["kind"] == "Pod" && has_address(value));
        let pods: Vec<&Value> = given.chain(&made).collect();
        let slices = values.iter().filter_map(|value| slice(value, values, &pods));
        let services = values.iter().filter(|value| lacks_address(value)).zip(0..);
        let services = services.map(|(service, count)| {
            let mut service = service.clone();
            service["spec"]["clusterIP"] = made_up(FIRST_SERVICE, count).into();
            service
        });
        let all: Vec<Value> = namespaces.chain(slices).chain(services).collect();
        sketch.objects = all.into_iter().chain(made).filter_map(object).collect();
        if sketch.objects.iter().any(|object| matches!(object, Object::Pod(_) | Object::Service(_))) {
            sketch.notes.push("addresses of 198.18.0.0/15 are made up".to_owned());
        }
        sketch
    }

    fn note(&mut self, names: &[String], before: &str, after: &str) {
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !names.is_empty() {
            let named: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
            self.notes.push(format!("{before} {}{more}{after}", named.join(", ")));
        }
    }
}

fn object(value: Value) -> Option<Object> {
    let served = ServedKind::find(value["apiVersion"].as_str()?, value["kind"].as_str()?)?;
    served.object(value).ok()
}

fn made_up(first: [u8; 4], count: u32) -> String {
    Ipv4Addr::from(u32::from_be_bytes(first).saturating_add(count)).to_string()
}

/// Of services to which a cluster would give one.
fn lacks_address(service: &Value) -> bool {
    let spec = &service["spec"];
    let has_one = [&spec["clusterIP"], &spec["clusterIPs"][0]]
        .iter()
        .any(|ip| ip.as_str().is_some_and(|ip| !ip.is_empty()));
    service["kind"] == "Service" && spec.is_object() && !has_one && spec["type"] != "ExternalName"
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value["metadata"][name].as_str().unwrap_or_default()
}

/// Pods that would run: one of each template, and those that the files have without an address. And what they are of.
fn made_pods(values: &[Value]) -> (Vec<Value>, Vec<String>) {
    let (mut pods, mut from) = (Vec::new(), Vec::new());
    for value in values {
        let Some(template) = template(value) else { continue };
        let (namespace, name) = (text(value, "namespace"), text(value, "name"));
        let count = u32::try_from(pods.len()).unwrap_or_default();
        let mut spec = template["spec"].clone();
        // Nobody's node, so that nobody shares it.
        if spec.is_object() && spec["nodeName"].is_null() {
            spec["nodeName"] = format!("(node of {name})").into();
        }
        from.push(format!("{} {namespace}/{name}", value["kind"].as_str().unwrap_or_default()));
        pods.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
            },
            "spec": spec,
            "status": {
                "phase": "Running", "podIP": made_up(FIRST_POD, count),
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }));
    }
    (pods, from)
}

/// What a pod would be made of.
fn template(value: &Value) -> Option<&Value> {
    let template = match value["kind"].as_str()? {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            &value["spec"]["template"]
        }
        "CronJob" => &value["spec"]["jobTemplate"]["spec"]["template"],
        "Pod" if !has_address(value) => value,
        _ => return None,
    };
    (template.is_object() && value["spec"]["replicas"] != 0).then_some(template)
}

fn has_address(pod: &Value) -> bool {
    address(pod).is_some()
}

fn address(pod: &Value) -> Option<&str> {
    let status = &pod["status"];
    status["podIP"].as_str().or_else(|| status["podIPs"][0]["ip"].as_str()).filter(|ip| !ip.is_empty())
}

/// Namespaces of services and pods of which the files say nothing.
fn unsaid_namespaces(values: &[Value]) -> BTreeSet<String> {
    let of_kind = |kind: &'static str| values.iter().filter(move |value| value["kind"] == kind);
    let said: BTreeSet<&str> = of_kind("Namespace").map(|value| text(value, "name")).collect();
    let pods = values.iter().filter(|value| value["kind"] == "Pod" || template(value).is_some());
    let needed = of_kind("Service").chain(pods).map(|value| text(value, "namespace"));
    needed.filter(|name| !name.is_empty() && !said.contains(name)).map(str::to_owned).collect()
}

/// The endpoints of a service with a selector of which the files say nothing.
fn slice(service: &Value, values: &[Value], pods: &[&Value]) -> Option<Value> {
    let (namespace, name) = (text(service, "namespace"), text(service, "name"));
    let selector = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty())?;
    if service["kind"] != "Service" || service["spec"]["type"] == "ExternalName" {
        return None;
    }
    let has_slices = values.iter().any(|value| {
        value["kind"] == "EndpointSlice"
            && text(value, "namespace") == namespace
            && value["metadata"]["labels"][SERVICE_NAME] == name
    });
    let selected: Vec<&Value> = pods
        .iter()
        .filter(|pod| {
            text(pod, "namespace") == namespace && is_selected(selector, &pod["metadata"]["labels"])
        })
        .copied()
        .collect();
    if has_slices || selected.is_empty() {
        return None;
    }
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().filter_map(|port| {
        let number = target(port, &selected)?;
        Some(json!({"name": port["name"].as_str().unwrap_or_default(), "port": number, "protocol": port["protocol"]}))
    });
    let endpoints = selected.iter().map(|pod| {
        let target = json!({"kind": "Pod", "namespace": namespace, "name": text(pod, "name")});
        json!({"addresses": [address(pod)], "targetRef": target, "conditions": {"ready": true}})
    });
    Some(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-made-up"), "namespace": namespace, "labels": {SERVICE_NAME: name}},
        "ports": ports.collect::<Vec<_>>(), "endpoints": endpoints.collect::<Vec<_>>(),
    }))
}

fn is_selected(selector: &Map<String, Value>, labels: &Value) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The port of the pods; a name is that of a container's port.
fn target(port: &Value, pods: &[&Value]) -> Option<u64> {
    match &port["targetPort"] {
        Value::Number(number) if number.as_u64() != Some(0) => number.as_u64(),
        Value::String(name) => name.parse().ok().or_else(|| {
            let containers = pods.iter().filter_map(|pod| pod["spec"]["containers"].as_array()).flatten();
            let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
            let named = ports.filter(|known| known["name"] == name.as_str());
            named.filter_map(|known| known["containerPort"].as_u64()).next()
        }),
        _ => port["port"].as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<Value> {
        text.split("---\n").map(|one| serde_saphyr::from_str(one).unwrap()).collect()
    }

    const FILE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web}, {name: admin, port: 81}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      serviceAccountName: web
      containers: [{name: web, ports: [{name: web, containerPort: 8080}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v0, namespace: shop}
spec: {replicas: 0, template: {metadata: {labels: {app: web}}, spec: {}}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-x, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: bank, labels: {app: web}}
status: {podIP: 10.0.0.1}
";

    #[test]
    fn services_get_the_pods_that_their_selector_takes() {
        let sketch = Sketch::of(&values(FILE));
        let keys: Vec<_> = sketch.objects.iter().map(|object| object.key().to_string()).collect();
        let expected = [
            "Namespace bank",
            "Namespace shop",
            "EndpointSlice shop/web-made-up",
            "Service shop/web",
            "Pod shop/web-v1",
            "Pod shop/web-x",
        ];
        assert_eq!(keys, expected);
        let Object::EndpointSlice(slice) = &sketch.objects[2] else { panic!("{keys:?}") };
        let ports: Vec<_> = slice.ports.iter().map(|port| (&*port.name, port.port)).collect();
        assert_eq!(ports, [("http", 8080), ("admin", 81)]);
        let names: Vec<_> =
            slice.endpoints.iter().map(|it| it.pod.as_ref().unwrap().name.to_string()).collect();
        assert_eq!(names, ["web-v1", "web-x"]);
        let Object::Pod(pod) = &sketch.objects[4] else { panic!("{keys:?}") };
        assert!(pod.ready && &*pod.service_account == "web" && pod.addresses[0].to_string() == "198.18.0.1");
        assert_eq!(
            sketch.notes,
            [
                "no pod runs yet: one stands for Deployment shop/web-v1, Pod shop/web-x",
                "the files have no Namespace bank, shop: taken for one that is in the mesh",
                "addresses of 198.18.0.0/15 are made up",
            ]
        );
    }

    #[test]
    fn what_the_files_say_stays() {
        let own = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: own, namespace: shop, labels: {kubernetes.io/service-name: web}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";
        let values = values(&format!("{FILE}---\n{own}"));
        let sketch = Sketch::of(&values);
        let keys: Vec<_> = sketch.objects.iter().map(|object| object.key().to_string()).collect();
        assert_eq!(keys, ["Namespace bank", "Service shop/web", "Pod shop/web-v1", "Pod shop/web-x"]);
        assert!(Sketch::of(&[]).objects.is_empty());
    }
}
