//! Objects that tests create, with what this cluster needs said once.

use serde_json::{Value, json};

use super::Cluster;

/// A pod, or what makes pods of its kind.
#[derive(Clone, Debug)]
pub struct Pod {
    name: String,
    spec: Value,
    labels: Value,
}

impl Cluster {
    /// A pod whose container `main` runs the tests' own program; label `app` is the pod's name.
    #[must_use]
    pub fn pod(&self, name: &str, args: &[&str]) -> Pod {
        let container = json!({
            "name": "main",
            "image": self.images.workload,
            "imagePullPolicy": "Never",
            "args": args,
        });
        Pod {
            name: name.to_owned(),
            // The program is a pod's first process and has no handler: only the end of its grace ends it.
            spec: json!({"containers": [container], "terminationGracePeriodSeconds": 1}),
            labels: json!({"app": name}),
        }
    }

    /// A pod that serves one of the tests' protocols on a port and is ready when it listens.
    #[must_use]
    pub fn server(&self, name: &str, mode: &str, port: u16) -> Pod {
        let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
        let pod = self.pod(name, &["serve", mode, "--port", &port.to_string()]);
        pod.container(|main| main["readinessProbe"] = probe)
    }

    /// A pod that does nothing, until a test runs something in it.
    #[must_use]
    pub fn client(&self, name: &str) -> Pod {
        self.pod(name, &["pause"])
    }
}

impl Pod {
    /// Only on this node.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        self.spec(|spec| spec["nodeSelector"] = json!({"kubernetes.io/hostname": node}))
    }

    /// With this service account.
    #[must_use]
    pub fn account(self, account: &str) -> Self {
        self.spec(|spec| spec["serviceAccountName"] = json!(account))
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels[key] = json!(value);
        self
    }

    /// With a container that runs the tests' own program to its end before the main one starts.
    #[must_use]
    pub fn init(self, args: &[&str]) -> Self {
        self.spec(|spec| {
            let mut container = spec["containers"][0].clone();
            container["name"] = json!("init");
            container["args"] = json!(args);
            if let Some(fields) = container.as_object_mut() {
                fields.remove("readinessProbe");
            }
            spec["initContainers"] = json!([container]);
        })
    }

    /// With a change of its spec.
    #[must_use]
    pub fn spec(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// With a change of its main container.
    #[must_use]
    pub fn container(self, change: impl FnOnce(&mut Value)) -> Self {
        self.spec(|spec| change(&mut spec["containers"][0]))
    }

    /// The pod itself.
    #[must_use]
    pub fn alone(self) -> Value {
        let meta = json!({"name": self.name, "labels": self.labels});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": self.spec})
    }

    /// A Deployment of such pods, spread over the nodes.
    #[must_use]
    pub fn deployment(mut self, replicas: u32) -> Value {
        let selector = json!({"matchLabels": {"app": self.name}});
        self.spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
        }]);
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {"replicas": replicas, "selector": selector, "template": self.template()},
        })
    }

    /// A Job of one such pod that must succeed at the first try.
    #[must_use]
    pub fn job(mut self) -> Value {
        self.spec["restartPolicy"] = json!("Never");
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name},
            "spec": {"backoffLimit": 0, "template": self.template()},
        })
    }

    fn template(&self) -> Value {
        json!({"metadata": {"labels": self.labels}, "spec": self.spec})
    }
}

/// A service of the pods labelled `app: NAME`.
#[must_use]
pub fn service(name: &str, port: u16, target: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]},
    })
}

/// A service account.
#[must_use]
pub fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}
