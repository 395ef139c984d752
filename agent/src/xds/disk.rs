//! The last good configuration on disk, so that an agent starts while the controller is away.
//!
//! `mesh.pb` is a 16-byte magic, the SHA-256 of the rest, and the rest: one `DeltaDiscoveryResponse` that holds
//! every resource with its version, addresses, policies and routes alike: without the policies that were there nobody may enter a
//! pod, so they are saved together or not at all. A policy that is not understood is saved as it came. A damaged file is
//! reported and ignored: the controller sends all again.
//!
//! An agent that subscribes by interest saves what it asked for as the controller would answer it: aliases of resources (their
//! own name among them, where they were asked for by that), and removed names. To an agent that subscribes to everything such
//! a file is of no use: it would take the rest of the mesh for what is outside of it.

use super::session::{Outcome, Session, Versions, name_of};
use crate::control::write_atomically;
use crate::store::{Mesh, Sought, Store};
use imbl::OrdSet;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use warren_common::model::ServiceName;
use warren_common::proto::discovery::{DeltaDiscoveryResponse, Resource};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MeshResource, REVOCATIONS, REVOCATIONS_TYPE_URL,
    TRAFFIC_TYPE_URL, decode_envelope, encode_address, encode_authorization, encode_envelope,
    encode_revocations, encode_traffic, traffic_name,
};

const MAGIC: &[u8; 16] = b"warren mesh v2\r\n";
const HASH_LEN: usize = 32;
/// Changes come in bursts: one write takes them all.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// A write that took long is not repeated before this many times as long.
const REST: u32 = 10;
/// Resources know fields that another version of the agent does not, so their versions hold for this one alone.
const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Follows the version in a file that does not hold everything.
const BY_INTEREST: &str = " by interest";

/// Why the file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its bytes are not those that were written.
    #[error("{} cannot be used: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Puts what the file at `path` holds into an empty session and the store. Tells whether there was a file.
pub(super) fn restore(path: &Path, session: &mut Session, store: &Store) -> Result<bool, DiskError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(DiskError::Read { path: path.to_owned(), source });
        }
    };
    let mut saved = decode(&bytes).map_err(|reason| DiskError::Damaged { path: path.to_owned(), reason })?;
    let version = saved.system_version_info.strip_suffix(BY_INTEREST);
    if version.is_some() && session.answered().is_none() {
        let reason = "it holds only what an agent that subscribed by interest had asked for";
        return Err(DiskError::Damaged { path: path.to_owned(), reason });
    }
    let same_agent = version.unwrap_or(&saved.system_version_info) == AGENT_VERSION;
    let others = [AUTHORIZATION_TYPE_URL, REVOCATIONS_TYPE_URL, TRAFFIC_TYPE_URL]
        .map(|type_url| take(&mut saved, type_url));
    let mut outcome = session.on_saved(saved);
    for other in others {
        let Outcome { changes, rejected, .. } = session.on_response(other);
        outcome.changes.extend(changes);
        outcome.rejected.extend(rejected);
    }
    if !same_agent {
        session.outdate_versions();
    }
    for rejection in &outcome.rejected {
        tracing::warn!(resource = rejection.resource, reason = rejection.reason, "saved resource ignored");
    }
    store.apply(outcome.changes);
    Ok(true)
}

/// Takes what is of another type out of what was saved, as a response of its own.
fn take(saved: &mut DeltaDiscoveryResponse, type_url: &str) -> DeltaDiscoveryResponse {
    let is_of_type = |bytes: &bytes::Bytes| {
        let content = decode_envelope(bytes.clone()).ok().and_then(|resource| resource.resource);
        content.is_some_and(|content| content.type_url == type_url)
    };
    let (resources, rest) = std::mem::take(&mut saved.resources).into_iter().partition(is_of_type);
    saved.resources = rest;
    DeltaDiscoveryResponse { type_url: type_url.to_owned(), resources, ..Default::default() }
}

fn decode(bytes: &[u8]) -> Result<DeltaDiscoveryResponse, &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as such a file does")?;
    let (hash, body) = rest.split_at_checked(HASH_LEN).ok_or("it is cut short")?;
    if Sha256::digest(body).as_slice() != hash {
        return Err("its checksum does not match");
    }
    DeltaDiscoveryResponse::decode(body).map_err(|_| "its content is malformed")
}

/// What the session knows beside the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    pub(super) versions: Versions,
    /// The versions of policies.
    pub(super) policies: Versions,
    /// The versions of routes.
    pub(super) traffic: Versions,
    /// The addresses and services asked for and answered; None when everything is subscribed to.
    pub(super) answered: Option<OrdSet<Sought>>,
}

fn save(path: &Path, mesh: &Mesh, saved: &Saved) -> io::Result<()> {
    let Saved { versions, policies, traffic, answered } = saved;
    let aliases = |addresses: &[IpAddr], name: Option<&ServiceName>| {
        let addresses = addresses.iter().map(|ip| Sought::from(*ip));
        let all = addresses.chain(name.cloned().map(Sought::from));
        let asked = |one: &Sought| answered.as_ref().is_some_and(|answered| answered.contains(one));
        all.filter(asked).map(|one| name_of(&one)).collect::<Vec<_>>()
    };
    let mut body = DeltaDiscoveryResponse {
        system_version_info: if answered.is_some() {
            format!("{AGENT_VERSION}{BY_INTEREST}")
        } else {
            AGENT_VERSION.to_owned()
        },
        type_url: ADDRESS_TYPE_URL.to_owned(),
        removed_resources: mesh.absent().map(name_of).collect(),
        ..Default::default()
    }
    .encode_to_vec();
    // Encodings of one message, put together, are the encoding of their union.
    let mut add = |resource: Resource| {
        let resources = vec![encode_envelope(&resource)];
        body.extend(DeltaDiscoveryResponse { resources, ..Default::default() }.encode_to_vec());
    };
    // Without a version the controller sends it again; see `Writer`.
    let version_of =
        |versions: &Versions, name: &str| versions.get(name).map(ToString::to_string).unwrap_or_default();
    let workloads =
        mesh.workloads().map(|workload| MeshResource::Workload(Box::new(workload.as_ref().clone())));
    let services = mesh.services().map(|service| MeshResource::Service(Box::new(service.as_ref().clone())));
    for resource in workloads.chain(services) {
        let name = resource.name();
        let aliases = match &resource {
            MeshResource::Workload(workload) => aliases(&workload.addresses, None),
            MeshResource::Service(service) => aliases(&service.addresses, Some(&service.key)),
        };
        let content =
            prost_types::Any { type_url: ADDRESS_TYPE_URL.to_owned(), value: encode_address(&resource) };
        add(Resource { version: version_of(versions, &name), name, resource: Some(content), aliases });
    }
    for (name, good, refused) in mesh.policies().list() {
        let value = match (good, refused) {
            (Some(good), _) => encode_authorization(good),
            (None, Some(refused)) => refused.content.to_vec(),
            (None, None) => continue,
        };
        let content = prost_types::Any { type_url: AUTHORIZATION_TYPE_URL.to_owned(), value };
        let name = name.to_string();
        add(Resource {
            version: version_of(policies, &name),
            name,
            resource: Some(content),
            aliases: vec![],
        });
    }
    for of_service in mesh.all_traffic() {
        let content =
            prost_types::Any { type_url: TRAFFIC_TYPE_URL.to_owned(), value: encode_traffic(of_service) };
        let name = traffic_name(&of_service.service);
        add(Resource { version: version_of(traffic, &name), name, resource: Some(content), aliases: vec![] });
    }
    let revoked = mesh.policies().revoked();
    if !revoked.is_empty() {
        let content = prost_types::Any {
            type_url: REVOCATIONS_TYPE_URL.to_owned(),
            value: encode_revocations(revoked),
        };
        // Without a version: the controller says it again, or that there is none any more.
        let name = REVOCATIONS.to_owned();
        add(Resource { version: String::new(), name, resource: Some(content), aliases: vec![] });
    }
    write_atomically(path, &[MAGIC, Sha256::digest(&body).as_slice(), &body])
}

/// Writes the configuration some time after it changed, and once more at the end.
///
/// It is told versions after the store has what they name, and takes the store's snapshot after reading them: what
/// it writes is as new as the versions beside it or newer, never older.
#[derive(Debug)]
pub(super) struct Writer {
    saved: watch::Sender<Saved>,
    task: JoinHandle<()>,
}

impl Writer {
    pub(super) fn spawn(path: PathBuf, store: Arc<Store>) -> Self {
        let (saved, watch) = watch::channel(Saved::default());
        Self { saved, task: tokio::spawn(write_changes(path, store, watch)) }
    }

    /// The store has just got what `saved` names.
    pub(super) fn changed(&self, saved: Saved) {
        self.saved.send_replace(saved);
    }

    /// Writes what is not written yet.
    pub(super) async fn finish(self) {
        drop(self.saved);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the configuration on disk may not be the newest");
        }
    }
}

async fn write_changes(path: PathBuf, store: Arc<Store>, mut watch: watch::Receiver<Saved>) {
    let mut pause = DEBOUNCE;
    while watch.changed().await.is_ok() {
        // Ends early when nothing more can come.
        let _ = timeout(pause, async { while watch.changed().await.is_ok() {} }).await;
        let began = Instant::now();
        let saved = watch.borrow_and_update().clone();
        let (target, mesh) = (path.clone(), store.load());
        let written = tokio::task::spawn_blocking(move || save(&target, &mesh, &saved)).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(()) => tracing::debug!(path = %path.display(), "configuration saved"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot save the configuration"),
        }
        pause = DEBOUNCE.max(began.elapsed() * REST);
    }
}
