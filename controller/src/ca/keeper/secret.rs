//! The CA in a Secret of the controller's own namespace.
//!
//! `cacerts` is a CA that somebody plugged in, and has precedence. Without it `warren-ca` is read, and made when it is
//! not there: by whichever replica is first, the others read what that one made.

use super::{CaError, Kept};
use crate::ca::bundle::{Bundle, BundleError, ROOT};
use crate::ca::own::{Own, STATE};
use crate::kubernetes::{CallError, Cluster};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const PLUGGED_IN: &str = "cacerts";
const OWN: &str = "warren-ca";

/// What is there.
pub(super) async fn read(cluster: &Cluster) -> Result<Kept, CaError> {
    if let Some(secret) = get(cluster, PLUGGED_IN).await? {
        let bundle = bundle(PLUGGED_IN, &secret)?;
        let bundle = bundle.ok_or_else(|| bad(PLUGGED_IN, BundleError::Missing(ROOT)))?;
        let plugged = Some((place(PLUGGED_IN), bundle));
        return Ok(Kept { plugged, own: None, is_old: false, mark: mark(&secret) });
    }
    let Some(secret) = get(cluster, OWN).await? else { return Ok(Kept::default()) };
    let mark = mark(&secret);
    if let Some(state) = text(OWN, &secret, STATE)? {
        let own = Own::decode(&state).map_err(|error| bad(OWN, error))?;
        return Ok(Kept { plugged: None, own: Some(own), is_old: false, mark });
    }
    let bundle = bundle(OWN, &secret)?.ok_or_else(|| bad(OWN, BundleError::Missing(ROOT)))?;
    Ok(match Own::adopt(&bundle, crate::ca::now()) {
        Some(own) => Kept { plugged: None, own: Some(own), is_old: true, mark },
        None => Kept { plugged: Some((place(OWN), bundle)), own: None, is_old: false, mark },
    })
}

/// Makes what is not there, or replaces what was read as `before`.
pub(super) async fn write(cluster: &Cluster, before: &Kept, own: &Own) -> Result<(), CaError> {
    let failed = |error| match error {
        CallError::Conflict => CaError::Conflict,
        error => CaError::Call { name: OWN, error },
    };
    let Some(mut secret) = get(cluster, OWN).await?.filter(|_| !before.mark.is_empty()) else {
        let labels = [("app.kubernetes.io/part-of".to_owned(), "warren".to_owned())];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(OWN.to_owned()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            data: Some(data(own)),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        return cluster.create(Some(cluster.namespace()), &secret).await.map(drop).map_err(failed);
    };
    if mark(&secret) != before.mark {
        return Err(CaError::Conflict);
    }
    secret.data = Some(data(own));
    cluster.replace(cluster.namespace(), OWN, &secret).await.map(drop).map_err(failed)
}

fn data(own: &Own) -> std::collections::BTreeMap<String, ByteString> {
    let copies = own.copies();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data: std::collections::BTreeMap<_, _> =
        copies.parts().into_iter().map(|(part, text)| (part.to_owned(), bytes(text))).collect();
    data.insert(STATE.to_owned(), bytes(&own.encode()));
    data
}

async fn get(cluster: &Cluster, name: &'static str) -> Result<Option<Secret>, CaError> {
    match cluster.get(cluster.namespace(), name).await {
        Ok(secret) => Ok(Some(secret)),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(CaError::Call { name, error }),
    }
}

fn bundle(name: &'static str, secret: &Secret) -> Result<Option<Bundle>, CaError> {
    Bundle::gather(|part| text(name, secret, part)).map_err(|error| match error {
        CaError::Bundle { error, .. } => bad(name, error),
        error => error,
    })
}

fn text(name: &'static str, secret: &Secret, part: &'static str) -> Result<Option<String>, CaError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(part));
    let text = bytes.map(|ByteString(bytes)| String::from_utf8(bytes.clone())).transpose();
    text.map_err(|_| bad(name, BundleError::Bad { part, reason: "not text".to_owned() }))
}

fn mark(secret: &Secret) -> String {
    let metadata = &secret.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} {}", part(&metadata.uid), part(&metadata.resource_version))
}

fn place(name: &str) -> String {
    format!("the Secret {name}")
}

fn bad(name: &str, error: BundleError) -> CaError {
    CaError::Bundle { place: place(name), error }
}
