//! The mesh that manifests make: read and resolved as the controller does, held as an agent does. Nobody is asked.

use crate::files::Files;
use crate::render::clean;
use crate::sketch::Sketch;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use warren_agent::explain::{Nothing, Scene};
use warren_agent::store::{Mesh, MeshChange};
use warren_common::model::{
    Enrolment, Health, Identity, PeerAuthentication, Placement, TunnelProtocol, Workload, WorkloadKind,
    WorkloadUid,
};
use warren_common::proto::MeshResource;
use warren_controller::index::{Index, RootNamespaces};
use warren_controller::resolve::{ResolveConfig, Resource, resolve};
use warren_controller::source::Change;
use warren_controller::source::manifests::Refused;

/// The names that resources carry, where nobody says which.
pub(crate) fn names(domain: &str) -> ResolveConfig {
    ResolveConfig {
        cluster: "Kubernetes".into(),
        cluster_domain: domain.into(),
        trust_domain: "cluster.local".into(),
    }
}

/// What manifests make of a mesh.
pub(crate) struct Offline {
    mesh: Mesh,
    /// What is to be known beside the answer.
    notes: Vec<String>,
}

impl Offline {
    /// Of these files and directories; objects that do not say where they are are in `namespace`.
    ///
    /// # Errors
    /// What can't be read, and what is wrong, with files and lines.
    pub(crate) fn of(paths: &[PathBuf], domain: &str, namespace: &str) -> Result<Self> {
        Self::new(&Files::read(paths), domain, namespace)
    }

    fn new(files: &Files, domain: &str, namespace: &str) -> Result<Self> {
        let found = files.objects(namespace);
        let unreadable = files.unreadable.iter().map(|(file, why)| format!("{file}: {why}"));
        let refused = found.refused.iter().map(|(file, Refused { object, error })| {
            let object = object.as_ref().map_or_else(String::new, |object| format!("{object}: "));
            format!("{file}:{}: {object}{}", error.line, error.reason)
        });
        let wrong: Vec<String> = unreadable.chain(refused).map(|text| clean(&text)).collect();
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n  "));
        }
        let differ = found.repeated.iter().filter(|again| !again.alike);
        let notes = differ.map(|again| {
            format!("{}:{}: {}: {again}; here it is this one", again.file, again.line, again.object)
        });
        let sketch = Sketch::of(&found.values);
        let notes = notes.chain(sketch.notes).collect();
        let mut index = Index::new(RootNamespaces::default(), domain.into());
        let mut keys = BTreeSet::new();
        for object in found.objects.into_iter().map(|one| one.object).chain(sketch.objects) {
            keys.extend(index.apply(&Change::Upsert(object)));
        }
        let config = names(domain);
        let mut mesh = Mesh::default();
        let resolved = keys.iter().filter_map(|key| resolve(&index, &config, key).resource);
        mesh.apply(std::iter::once(MeshChange::Policies).chain(resolved.map(change)));
        Ok(Self { mesh, notes })
    }

    /// Tells people at the terminal what they should know beside the answer.
    pub(crate) fn warn(&self) {
        for note in &self.notes {
            eprintln!("warren: {}", clean(note));
        }
    }

    /// With this client: where the files have no such pod, a pod of that namespace without labels.
    ///
    /// # Errors
    /// When `client` is not `namespace/name`.
    pub(crate) fn with_client(mut self, client: &str) -> Result<Self> {
        let Some((namespace, name)) = client.split_once('/') else {
            bail!("{client:?} is no client; write NAMESPACE/POD");
        };
        let known = self.mesh.workloads().any(|pod| *pod.namespace == *namespace && *pod.name == *name);
        if !known {
            let pod = made_up(namespace, name).with_context(|| format!("{client:?} is no pod's name"))?;
            self.mesh.apply([MeshChange::Workload(Arc::new(pod))]);
            self.notes.push(format!("the files have no pod {client}: taken for one without labels"));
        }
        Ok(self)
    }

    /// With a client in every namespace that has services, where the files have no pod that is in the mesh.
    ///
    /// # Errors
    /// When the name of a namespace can be none.
    pub(crate) fn with_any_client(mut self) -> Result<Self> {
        if self.mesh.workloads().any(|pod| pod.enrolment.enrolled && !pod.host_network) {
            return Ok(self);
        }
        let namespaces: BTreeSet<_> =
            self.mesh.services().map(|service| Arc::clone(&service.key.namespace)).collect();
        for namespace in &namespaces {
            let pod = made_up(namespace, "(any pod)")?;
            self.mesh.apply([MeshChange::Workload(Arc::new(pod))]);
        }
        if !namespaces.is_empty() {
            let note =
                "the files have no pod that is in the mesh: one without labels stands for each namespace";
            self.notes.push(note.to_owned());
        }
        Ok(self)
    }

    /// To be looked at; chance falls the same way every time.
    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene { mesh: &self.mesh, node: None, known: &Nothing, entropy: 0, now: Instant::now() }
    }
}

fn change(resource: Resource) -> MeshChange {
    match resource {
        Resource::Address(MeshResource::Workload(workload)) => MeshChange::Workload(Arc::from(workload)),
        Resource::Address(MeshResource::Service(service)) => MeshChange::Service(Arc::from(service)),
        Resource::Namespace(name) => MeshChange::Namespaces { enrolled: vec![name], released: vec![] },
        Resource::Authorization(policy) => MeshChange::Policy(Arc::from(policy)),
        Resource::Traffic(traffic) => MeshChange::Traffic(Arc::from(traffic)),
    }
}

fn made_up(namespace: &str, name: &str) -> Result<Workload> {
    Ok(Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/{namespace}/{name}").into()),
        name: name.into(),
        namespace: namespace.into(),
        addresses: Vec::new(),
        identity: Identity::new("cluster.local", namespace, "default")?,
        node: Arc::default(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: Health::Healthy,
        owner: name.into(),
        kind: WorkloadKind::Pod,
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        services: Arc::default(),
        labels: Arc::default(),
        enrolment: Enrolment { enrolled: true, ..Enrolment::default() },
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    })
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod tests {
    use super::*;
    use warren_agent::explain::{routes, why};
    use warren_common::model::ServiceName;
    use warren_common::model::admin::{RoutesQuestion, WhyQuestion};
    use warren_common::model::traffic::Traffic;

    fn of(texts: &[(&str, &str)]) -> Result<Offline> {
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Offline::new(&Files { texts: texts.collect(), unreadable: vec![] }, "cluster.local", "default")
    }

    /// What a text says of the traffic to `web`, a service of `shop`.
    pub(super) fn traffic_to_web(text: &str) -> Result<Option<Arc<Traffic>>> {
        let offline = of(&[("test.yaml", text)])?;
        let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() };
        Ok(offline.mesh.traffic(&web).cloned())
    }

    /// A VirtualService of `web` with these fields.
    pub(super) fn virtual_service(fields: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{hosts: [web], {fields}}}\n"
        )
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: x}\n";
        let error = of(&[("a.yaml", "kind: ["), ("b.yaml", bad)]).err().unwrap().to_string();
        assert!(
            error.starts_with("a.yaml:1: ") && error.contains("\n  b.yaml:4: Service default/web: "),
            "{error}"
        );
        assert!(of(&[]).unwrap().with_client("web").is_err());
        let made_up = of(&[]).unwrap().with_client("shop/web").unwrap();
        assert_eq!(made_up.notes, ["the files have no pod shop/web: taken for one without labels"]);
        let other = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.0.0.1}\n";
        let twice =
            of(&[("a.yaml", other), ("b.yaml", other), ("c.yaml", &other.replace("0.1", "0.2"))]).unwrap();
        assert_eq!(twice.notes.len(), 2, "of the namespace too");
        assert!(twice.notes[0].starts_with("c.yaml:1: Service default/web: it is also defined at a.yaml:1"));
    }

    const RULES: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{name: all, route: [{destination: {host: web}}]}]
";
    const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: []}}}
";

    fn outcome(offline: &Offline) -> warren_common::model::admin::WhyOutcome {
        let question =
            WhyQuestion { client: "shop/a".into(), to: "http://web/".into(), ..WhyQuestion::default() };
        why(&offline.scene(), &question).unwrap().outcome
    }

    #[test]
    fn deployments_stand_behind_their_services() {
        let offline =
            of(&[("a.yaml", RULES), ("b.yaml", DEPLOYMENT)]).unwrap().with_client("shop/a").unwrap();
        let outcome = outcome(&offline);
        assert_eq!((outcome.endpoint.as_deref(), outcome.flag), (Some("shop/web"), None), "{}", outcome.text);
    }

    #[test]
    fn files_without_pods_show_their_rules_and_say_what_they_leave_open() {
        let offline = of(&[("a.yaml", RULES)]).unwrap().with_client("shop/a").unwrap();
        let outcome = outcome(&offline);
        let said = "the files don't say which endpoints web.shop.svc.cluster.local has";
        assert_eq!((&*outcome.text, outcome.status, outcome.flag), (said, None, None));
        let any = of(&[("a.yaml", RULES)]).unwrap().with_any_client().unwrap();
        let told = routes(&any.scene(), &RoutesQuestion::default()).unwrap();
        assert_eq!((told.routes.len(), &*told.routes[0].rules[0].name), (1, "all"));
        assert_eq!(told.routes[0].remarks, Vec::<String>::new());
    }
}
