//! The suite's manifests: which pods and services they ask for, and which belong to a case.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::lab::{Lab, LabBuilder, Mesh, Pod, Proc, ServiceSpec};

const NODES: [&str; 2] = ["n1", "n2"];

/// What is read of the suite.
pub(crate) struct Fixture {
    dir: PathBuf,
    base: Vec<Value>,
    servers: Vec<Server>,
}

/// A pod of a Deployment and its echo server.
struct Server {
    pod: String,
    deployment: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    /// Arguments of our echo server: the ports that the container's arguments name.
    ports: Vec<String>,
}

/// The echo servers at work.
pub(crate) struct Running(Vec<(String, Proc)>);

impl Running {
    /// How often the pods of a Deployment have seen a request with this path and query.
    pub(crate) fn seen(&self, deployment: &str, path: &str) -> usize {
        let line = format!("Echoing back request made to {path} to client");
        let of_it = self.0.iter().filter(|(of, _)| of == deployment);
        of_it.map(|(_, process)| process.stdout_so_far().lines().filter(|said| *said == line).count()).sum()
    }
}

impl Fixture {
    /// The objects of `base` that are in one of these namespaces and are not about TLS.
    pub(crate) fn read(dir: &Path, base: &str, namespaces: &[&str]) -> Result<Self> {
        let mut base = objects(&dir.join(base))?;
        base.retain(|object| {
            let metadata = &object["metadata"];
            let named = |value: &Value| value.as_str().is_some_and(|name| namespaces.contains(&name));
            let with_tls = metadata["name"].as_str().is_some_and(|name| name.contains("tls"));
            !with_tls && (named(&metadata["namespace"]) || named(&metadata["name"]))
        });
        let deployments = base.iter().filter(|object| object["kind"] == "Deployment");
        let servers: Vec<Vec<Server>> =
            deployments.enumerate().map(|(number, object)| pods(number, object)).collect::<Result<_>>()?;
        Ok(Self { dir: dir.to_owned(), base, servers: servers.into_iter().flatten().collect() })
    }

    /// A lab with its namespaces in the mesh, its services, and a pod for each of its Deployments.
    pub(crate) fn lab(&self) -> Result<LabBuilder> {
        let mut lab = Lab::builder().nodes(NODES);
        for object in &self.base {
            let name = text(&object["metadata"]["name"])?;
            match object["kind"].as_str() {
                Some("Namespace") => lab = lab.namespace(name, Mesh::Enabled),
                Some("Service") => {
                    let spec = service(object)?;
                    lab = lab.service(name, |_| spec);
                }
                _ => {}
            }
        }
        for (server, node) in self.servers.iter().zip(NODES.iter().cycle()) {
            lab = lab.pod(&server.pod, |pod| {
                let pod = pod.on(node).namespace(&server.namespace);
                server.labels.iter().fold(pod, |pod, (key, value)| pod.label(key, value))
            });
        }
        Ok(lab)
    }

    /// Starts the servers; they run as long as this is kept.
    pub(crate) fn serve(&self, lab: &Lab) -> Result<Running> {
        let start = |server: &Server| {
            let Server { pod, deployment, namespace, ports, .. } = server;
            let who = ["--pod", pod, "--namespace", namespace, "--service", deployment];
            let mut process = lab.pod(pod).workload(["echo-requests"]).args(who).args(ports).spawn()?;
            process.wait_for("\"listening\"", Duration::from_secs(20))?;
            Ok((deployment.clone(), process))
        };
        self.servers.iter().map(start).collect::<Result<_>>().map(Running)
    }

    /// A pod of a Deployment.
    pub(crate) fn pod(&self, lab: &Lab, namespace: &str, deployment: &str) -> Result<Pod> {
        let found = self.pods(lab, namespace, deployment).into_iter().next();
        found.with_context(|| format!("no Deployment {namespace}/{deployment}"))
    }

    /// All of them.
    pub(crate) fn pods(&self, lab: &Lab, namespace: &str, deployment: &str) -> Vec<Pod> {
        let is_it = |server: &&Server| server.namespace == namespace && server.deployment == deployment;
        self.servers.iter().filter(is_it).map(|server| lab.pod(&server.pod)).collect()
    }

    /// Namespaces, and in each its services' names.
    pub(crate) fn services(&self) -> Vec<(&str, &str)> {
        let services = self.base.iter().filter(|object| object["kind"] == "Service");
        services
            .filter_map(|object| {
                Some((object["metadata"]["namespace"].as_str()?, object["metadata"]["name"].as_str()?))
            })
            .collect()
    }

    /// The cases that the suite has, each with its manifests: the mesh's, or the others.
    pub(crate) fn cases(&self, of_mesh: bool) -> Result<BTreeMap<String, Vec<Value>>> {
        let path = self.dir.join("index.json");
        let index: Vec<Value> = serde_json::from_str(&read(&path)?).context("index.json")?;
        let mut cases = BTreeMap::new();
        for entry in index {
            let features = entry["features"].as_array().context("a case without features")?;
            if features.iter().any(|feature| feature == "Mesh") != of_mesh {
                continue;
            }
            let mut manifests = Vec::new();
            for file in entry["manifests"].as_array().into_iter().flatten() {
                manifests.extend(objects(&self.dir.join(text(file)?))?);
            }
            cases.insert(text(&entry["short"])?.to_owned(), manifests);
        }
        Ok(cases)
    }
}

fn pods(number: usize, object: &Value) -> Result<Vec<Server>> {
    let deployment = text(&object["metadata"]["name"])?;
    let namespace = text(&object["metadata"]["namespace"])?;
    let template = &object["spec"]["template"];
    let labels: BTreeMap<String, String> = serde_json::from_value(template["metadata"]["labels"].clone())?;
    let container = &template["spec"]["containers"][0];
    let args: Vec<String> = match &container["args"] {
        // The images' own.
        Value::Null if text(&container["image"])?.contains("echo-basic") => {
            vec!["--port=3000".to_owned(), "--port=3001".to_owned()]
        }
        Value::Null => vec!["--port=8080".to_owned(), "--grpc=7070".to_owned(), "--tcp=9090".to_owned()],
        args => serde_json::from_value(args.clone())?,
    };
    let replicas = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let pod = |replica| Server {
        pod: format!("{deployment}-rs{number}-{replica}"),
        namespace: namespace.to_owned(),
        deployment: deployment.to_owned(),
        labels: labels.clone(),
        ports: ports(&args),
    };
    Ok((0..replicas).map(pod).collect())
}

/// No case here speaks to a port with TLS of its own: those are left out.
fn ports(args: &[String]) -> Vec<String> {
    let numbers = |name: &str| {
        let name = format!("--{name}=");
        args.iter().filter_map(move |arg| arg.strip_prefix(&name))
    };
    let with_tls: Vec<_> = numbers("tls").collect();
    let plain = numbers("port").chain(numbers("grpc")).filter(|port| !with_tls.contains(port));
    let plain = plain.map(|port| format!("--port={port}"));
    plain.chain(numbers("tcp").map(|port| format!("--tcp={port}"))).collect()
}

fn service(object: &Value) -> Result<ServiceSpec> {
    let mut spec = ServiceSpec::new(text(&object["metadata"]["name"])?);
    spec = spec.namespace(text(&object["metadata"]["namespace"])?);
    for (key, value) in object["spec"]["selector"].as_object().into_iter().flatten() {
        spec = spec.select(key, text(value)?);
    }
    for port in object["spec"]["ports"].as_array().into_iter().flatten() {
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let own = number(&port["port"]).context("a port without number")?;
        // The only one of a service needs no name.
        spec = spec.port(
            port["name"].as_str().unwrap_or_default(),
            own,
            number(&port["targetPort"]).unwrap_or(own),
        );
        if let Some(protocol) = port["appProtocol"].as_str() {
            spec = spec.app_protocol(protocol);
        }
    }
    Ok(spec)
}

fn objects(path: &Path) -> Result<Vec<Value>> {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(&read(path)?).with_context(|| format!("{}", path.display()))?;
    let all: Vec<Value> = all.into_iter().filter(|object| !object.is_null()).collect();
    ensure!(!all.is_empty(), "{} is empty", path.display());
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("no {}", path.display()))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} where a text was expected"))
}
