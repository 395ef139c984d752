//! Which identities a node may have certificates of. Pure.

use crate::index::Index;
use crate::objects::Name;
use warren_common::model::Identity;

/// Why a caller may not have the identity it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The token is of an account that impersonates nobody.
    #[error(
        "the service account {account} may not ask for certificates of others; agents run as one of: {trusted}"
    )]
    Account {
        /// The caller's.
        account: Name,
        /// Those that may.
        trusted: String,
    },
    /// The token is not bound to a node.
    #[error("the token names no node (claim kubernetes.io/node); use a token that is bound to a pod")]
    NoNode,
    /// Another trust domain.
    #[error("{identity} is not in the trust domain {trust_domain}")]
    TrustDomain {
        /// Asked for.
        identity: Identity,
        /// Ours.
        trust_domain: String,
    },
    /// No pod of the node runs as it.
    #[error("no running pod on node {node} has the identity {identity}")]
    NotOnNode {
        /// Asked for.
        identity: Identity,
        /// The caller's node.
        node: String,
    },
}

/// Who may ask for whom.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Ours.
    pub trust_domain: String,
    /// Service accounts that agents run as. Without this rule any pod that may mint a token for our audience
    /// could become any other pod of its node.
    pub agent_accounts: Vec<Name>,
}

/// Allows an identity exactly when a pod that has not ended runs with it on the caller's node.
///
/// # Errors
/// The first rule that is broken.
pub fn authorise(
    index: &Index,
    rules: &Rules,
    account: &Name,
    node: &str,
    identity: &Identity,
) -> Result<(), Denied> {
    if !rules.agent_accounts.contains(account) {
        let trusted: Vec<_> = rules.agent_accounts.iter().map(ToString::to_string).collect();
        return Err(Denied::Account { account: account.clone(), trusted: trusted.join(", ") });
    }
    if node.is_empty() {
        return Err(Denied::NoNode);
    }
    if identity.trust_domain() != rules.trust_domain {
        return Err(Denied::TrustDomain {
            identity: identity.clone(),
            trust_domain: rules.trust_domain.clone(),
        });
    }
    let has_it = index.pods_on_node(node).any(|pod| {
        pod.is_live()
            && *pod.name.namespace == *identity.namespace()
            && *pod.service_account == *identity.service_account()
    });
    if !has_it {
        return Err(Denied::NotOnNode { identity: identity.clone(), node: node.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Object, Phase, Pod};
    use crate::source::Change;

    fn pod(name: &str, node: &str, account: &str, phase: Phase) -> Change {
        Change::Upsert(Object::Pod(Pod {
            name: Name::new("shop", name),
            uid: "".into(),
            labels: Default::default(),
            annotations: Default::default(),
            owner: None,
            node: node.into(),
            service_account: account.into(),
            hostname: None,
            host_network: false,
            addresses: Vec::new(),
            phase,
            ready: false,
            unheard: false,
            deleting: false,
        }))
    }

    #[test]
    fn only_identities_of_running_pods_of_the_callers_node() {
        let mut index = Index::default();
        index.apply(&pod("web", "n1", "web", Phase::Live));
        index.apply(&pod("job", "n1", "job", Phase::Ended));
        index.apply(&pod("db", "n2", "db", Phase::Live));
        index.apply(&pod("waiting", "", "waiting", Phase::Live));
        let rules = Rules {
            trust_domain: "cluster.local".into(),
            agent_accounts: vec![Name::new("warren-system", "warren-agent")],
        };
        let agent = Name::new("warren-system", "warren-agent");
        for (account, node, identity, allowed) in [
            (&agent, "n1", "spiffe://cluster.local/ns/shop/sa/web", true),
            (&agent, "n2", "spiffe://cluster.local/ns/shop/sa/db", true),
            (&agent, "n1", "spiffe://cluster.local/ns/shop/sa/db", false),
            (&agent, "n1", "spiffe://cluster.local/ns/shop/sa/job", false),
            (&agent, "n1", "spiffe://cluster.local/ns/other/sa/web", false),
            (&agent, "n1", "spiffe://elsewhere/ns/shop/sa/web", false),
            (&agent, "", "spiffe://cluster.local/ns/shop/sa/waiting", false),
            (&Name::new("shop", "web"), "n1", "spiffe://cluster.local/ns/shop/sa/web", false),
        ] {
            let identity = identity.parse().unwrap();
            let verdict = authorise(&index, &rules, account, node, &identity);
            assert_eq!(verdict.is_ok(), allowed, "{account} {node} {identity}: {verdict:?}");
        }
        index.apply(&Change::Delete(crate::objects::Key {
            kind: crate::objects::Kind::Pod,
            name: Name::new("shop", "web"),
        }));
        assert!(
            authorise(
                &index,
                &rules,
                &agent,
                "n1",
                &"spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
            )
            .is_err()
        );
    }
}
