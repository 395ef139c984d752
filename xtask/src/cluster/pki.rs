//! The cluster's certificates and kubeconfigs, made by the openssl program and kept between runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::{API, CONTROL_PLANE, Layout, NODES};
use super::tool::output;

/// Without the system's configuration, which would add extensions of its own.
const CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n";

/// A certificate: file name, subject (Kubernetes reads user and groups from it), extensions.
struct Certificate {
    name: String,
    subject: String,
    usage: &'static str,
    /// subjectAltName; empty for clients.
    names: String,
}

fn certificates() -> Vec<Certificate> {
    let client = |name: &str, subject: &str| Certificate {
        name: name.to_owned(),
        subject: subject.to_owned(),
        usage: "clientAuth",
        names: String::new(),
    };
    let mut all = vec![
        Certificate {
            name: "apiserver".to_owned(),
            subject: "/CN=kube-apiserver".to_owned(),
            usage: "serverAuth",
            names: format!(
                "IP:127.0.0.1,IP:{CONTROL_PLANE},IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
                 DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
            ),
        },
        client("admin", "/O=system:masters/CN=admin"),
        client("controller-manager", "/CN=system:kube-controller-manager"),
        client("scheduler", "/CN=system:kube-scheduler"),
        client("proxy", "/CN=system:kube-proxy"),
        client("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    ];
    all.extend(NODES.map(|node| Certificate {
        name: node.name(),
        subject: format!("/O=system:nodes/CN=system:node:{}", node.name()),
        usage: "clientAuth,serverAuth",
        names: format!("DNS:{},IP:{}", node.name(), node.address()),
    }));
    all
}

/// Makes all keys, certificates and kubeconfigs that are not there yet.
pub(crate) fn create(layout: &Layout) -> Result<()> {
    let dir = layout.pki();
    fs::write(dir.join("openssl.cnf"), CONFIG).context("cannot write openssl.cnf")?;
    if !dir.join("ca.crt").exists() {
        authority(&dir)?;
    }
    if !dir.join("sa.pub").exists() {
        token_keys(&dir)?;
    }
    let certificates = certificates();
    std::thread::scope(|scope| {
        let missing = certificates.iter().filter(|it| !dir.join(format!("{}.crt", it.name)).exists());
        let makers: Vec<_> = missing.map(|it| scope.spawn(|| sign(&dir, it))).collect();
        makers.into_iter().try_for_each(super::join)
    })?;
    for it in certificates.iter().filter(|it| it.usage.contains("clientAuth")) {
        let file = layout.kubeconfig(&it.name);
        fs::write(&file, kubeconfig(&dir, &it.name))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// `openssl req` for a new P-256 key and a certificate of it, which appears under its name when it is complete.
fn request(dir: &Path, name: &str) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(["req", "-x509", "-config", "openssl.cnf", "-days", "3650", "-nodes"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.part")]);
    command
}

fn finish(dir: &Path, name: &str) -> Result<()> {
    fs::rename(dir.join(format!("{name}.part")), dir.join(format!("{name}.crt")))
        .with_context(|| format!("cannot rename {name}.part"))
}

fn authority(dir: &Path) -> Result<()> {
    // Certificates of an earlier authority are worthless.
    for it in certificates() {
        let _ = fs::remove_file(dir.join(format!("{}.crt", it.name)));
    }
    output(request(dir, "ca").args(["-subj", "/CN=kubernetes-ca"]).args([
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-addext",
        "subjectKeyIdentifier=hash",
    ]))?;
    finish(dir, "ca")
}

fn sign(dir: &Path, it: &Certificate) -> Result<()> {
    let mut command = request(dir, &it.name);
    command.args(["-CA", "ca.crt", "-CAkey", "ca.key", "-subj", &it.subject]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-addext", "keyUsage=critical,digitalSignature"]);
    command.args(["-addext", &format!("extendedKeyUsage={}", it.usage)]);
    if !it.names.is_empty() {
        command.args(["-addext", &format!("subjectAltName={}", it.names)]);
    }
    output(&mut command)?;
    finish(dir, &it.name)
}

/// The keys that sign and verify service accounts' tokens.
fn token_keys(dir: &Path) -> Result<()> {
    let openssl = |args: &[&str]| output(Command::new("openssl").current_dir(dir).args(args));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key"])?;
    openssl(&["pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
    Ok(())
}

fn kubeconfig(dir: &Path, user: &str) -> String {
    let dir = dir.display();
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: warren, cluster: {{server: \"{API}\", certificate-authority: \"{dir}/ca.crt\"}}}}]
users: [{{name: {user}, user: {{client-certificate: \"{dir}/{user}.crt\", client-key: \"{dir}/{user}.key\"}}}}]
contexts: [{{name: warren, context: {{cluster: warren, user: {user}}}}}]
current-context: warren
"
    )
}
