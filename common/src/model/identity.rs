//! SPIFFE identities of workloads.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` (SPIFFE-ID 1.0, Istio's path layout).
///
/// Parsed at the edge: a value of this type is well-formed, lower-case where the standard asks for it, and
/// safe to print. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is not the identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The scheme is not `spiffe://`, or the path is not `/ns/<namespace>/sa/<service account>`.
    #[error("{0:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Shape(String),
    /// A part is empty, too long or holds characters that its kind forbids.
    #[error(
        "the {part} {value:?} is empty, longer than {limit} characters, or holds characters not allowed there"
    )]
    Part {
        /// Which part.
        part: &'static str,
        /// Its text.
        value: String,
        /// How long it may be.
        limit: usize,
    },
}

impl Identity {
    /// An identity from its parts.
    ///
    /// # Errors
    /// [`IdentityError::Part`] when a part is not a trust domain name (SPIFFE-ID 2.1: lower-case letters,
    /// digits, `.`, `-`, `_`) or not a Kubernetes name (DNS-1123).
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        check("trust domain", trust_domain, 255, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)
        })?;
        check("namespace", namespace, 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')?;
        check("service account", service_account, 253, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b)
        })?;
        Ok(Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain, for example `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// Its parts, to be replaced by equal ones.
    pub(super) fn parts_mut(&mut self) -> [&mut Arc<str>; 3] {
        [&mut self.trust_domain, &mut self.namespace, &mut self.service_account]
    }
}

fn check(
    part: &'static str,
    value: &str,
    limit: usize,
    allowed: fn(u8) -> bool,
) -> Result<(), IdentityError> {
    if value.is_empty() || value.len() > limit || !value.bytes().all(allowed) {
        return Err(IdentityError::Part { part, value: value.chars().take(300).collect(), limit });
    }
    Ok(())
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let shape = || IdentityError::Shape(text.chars().take(600).collect());
        let rest = text.strip_prefix("spiffe://").ok_or_else(shape)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(shape());
        };
        Self::new(domain, namespace, account)
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_identities_parse() {
        let id: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "shop", "cart")
        );
    }

    #[test]
    fn bad_identities_are_refused() {
        for bad in [
            "",
            "spiffe://",
            "http://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a b/sa/b",
            "spiffe://cluster.local/ns/a/sa/b?x",
            "spiffe://u@c/ns/a/sa/b",
            "spiffe://c:1/ns/a/sa/b",
            "spiffe://cluster.local/sa/a/ns/b",
            "spiffe://cluster.local/ns/ä/sa/b",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,400}") {
            if let Ok(id) = text.parse::<Identity>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
