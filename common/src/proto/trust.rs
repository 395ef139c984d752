//! `warren.v1.TrustBundle`: whom to trust; and what an agent tells of it in its node's metadata.

use super::error::WireError;
use super::generated::discovery::Node;
use super::generated::warren;
use crate::model::{TrustBundle, TrustReport};
use prost::Message;
use prost_types::{ListValue, Value, value::Kind};
use std::collections::BTreeSet;
use std::time::Duration;

/// Type URL of the trust bundle on the wire.
pub const TRUST_TYPE_URL: &str = "type.googleapis.com/warren.v1.TrustBundle";
/// The name of the one resource of that type.
pub const TRUST: &str = "trust";

const BUNDLES: &str = "TRUST_BUNDLES";
const SIGNERS: &str = "TRUST_SIGNERS";
/// More roots than this are nobody's mesh.
const MAX_ROOTS: usize = 64;
/// An agent reports so many names at most, and none longer (bytes).
const MAX_REPORTED: usize = 64;
const MAX_NAME: usize = 64;

/// Encodes a bundle.
pub fn encode_trust(bundle: &TrustBundle) -> Vec<u8> {
    let TrustBundle { id, roots, retired, signer, renew_within } = bundle.clone();
    let renew_within_seconds = u32::try_from(renew_within.as_secs()).unwrap_or(u32::MAX);
    warren::TrustBundle { id, roots, retired, signer, renew_within_seconds }.encode_to_vec()
}

/// Decodes a bundle. Whether its roots are certificates is for the reader to check.
///
/// # Errors
/// When the bytes are no message, or it names no roots or too many.
pub fn decode_trust(bytes: &[u8]) -> Result<TrustBundle, WireError> {
    let bundle = warren::TrustBundle::decode(bytes)?;
    let warren::TrustBundle { id, roots, retired, signer, renew_within_seconds } = bundle;
    if roots.is_empty() || roots.len() + retired.len() > MAX_ROOTS || roots.iter().any(Vec::is_empty) {
        return Err(WireError::Roots(roots.len(), MAX_ROOTS));
    }
    let renew_within = Duration::from_secs(renew_within_seconds.into());
    Ok(TrustBundle { id, roots, retired, signer, renew_within })
}

/// Fields of a node's metadata that say what `report` does.
pub fn trust_report_fields(report: &TrustReport) -> [(String, Value); 2] {
    let list = |names: &BTreeSet<String>| {
        let values = names.iter().take(MAX_REPORTED);
        let values = values.map(|name| Value { kind: Some(Kind::StringValue(name.clone())) }).collect();
        Value { kind: Some(Kind::ListValue(ListValue { values })) }
    };
    [(BUNDLES.to_owned(), list(&report.bundles)), (SIGNERS.to_owned(), list(&report.signers))]
}

/// What a node's metadata says; none when it says nothing of trust.
pub fn trust_report(node: &Node) -> Option<TrustReport> {
    let fields = &node.metadata.as_ref()?.fields;
    let list = |name: &str| match fields.get(name)?.kind.as_ref()? {
        Kind::ListValue(list) => {
            let names = list.values.iter().take(MAX_REPORTED).map(|value| match &value.kind {
                Some(Kind::StringValue(name)) if name.len() <= MAX_NAME => Some(name.clone()),
                _ => None,
            });
            names.collect::<Option<BTreeSet<_>>>()
        }
        _ => None,
    };
    Some(TrustReport { bundles: list(BUNDLES)?, signers: list(SIGNERS)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Struct;

    fn bundle() -> TrustBundle {
        TrustBundle {
            id: "b1".to_owned(),
            roots: vec![vec![1, 2], vec![3]],
            retired: vec![vec![4]],
            signer: "00ff".to_owned(),
            renew_within: Duration::from_secs(300),
        }
    }

    #[test]
    fn a_bundle_survives_the_wire_and_one_without_roots_is_refused() {
        assert_eq!(decode_trust(&encode_trust(&bundle())).unwrap(), bundle());
        let many = TrustBundle { roots: vec![vec![1]; 65], ..bundle() };
        for bad in [TrustBundle::default(), TrustBundle { roots: vec![vec![]], ..bundle() }, many] {
            assert!(matches!(decode_trust(&encode_trust(&bad)), Err(WireError::Roots(..))), "{bad:?}");
        }
        assert!(matches!(decode_trust(&[0xff]), Err(WireError::Malformed(_))));
    }

    #[test]
    fn a_report_survives_and_nonsense_is_none() {
        let report = TrustReport {
            bundles: BTreeSet::from(["b1".to_owned()]),
            signers: BTreeSet::from(["x".to_owned(), "y".to_owned()]),
        };
        let node = |report: &TrustReport| Node {
            metadata: Some(Struct { fields: trust_report_fields(report).into() }),
            ..Node::default()
        };
        assert_eq!(trust_report(&node(&report)), Some(report));
        assert_eq!(trust_report(&node(&TrustReport::default())), Some(TrustReport::default()));
        assert_eq!(trust_report(&Node::default()), None);
        let long = TrustReport { bundles: BTreeSet::from(["x".repeat(65)]), ..TrustReport::default() };
        assert_eq!(trust_report(&node(&long)), None);
    }
}
