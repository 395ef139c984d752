//! Who may connect to whom: AuthorizationPolicies, as far as connections are concerned.
//!
//! Pure data. What rules over bytes that nobody parses (HTTP fields on opaque TCP) is settled by whoever makes these from
//! the objects of a cluster: an ALLOW rule with such a field is left out, of a DENY rule only that field is.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// `namespace/name` of a policy, its key everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// Why a text is not the name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not namespace/name of a policy (lower-case letters, digits, '-', '.' and '_')")]
pub struct PolicyNameError(String);

/// Name of the policy that refuses all plaintext, made of PeerAuthentications (istiod's name for it).
pub const STATIC_STRICT: &str = "istio_converted_static_strict";

/// How names of policies begin that are made of PeerAuthentications with ports of their own (istiod's, too).
pub const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

impl PolicyName {
    /// A name from its parts.
    ///
    /// # Errors
    /// [`PolicyNameError`] when a part is empty, too long (63 and 253 characters), or holds what Kubernetes does not allow
    /// there; `_` is let through, for istiod makes such names.
    pub fn new(namespace: &str, name: &str) -> Result<Self, PolicyNameError> {
        let is_good = |part: &str, limit: usize| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
            !part.is_empty() && part.len() <= limit && part.bytes().all(allowed)
        };
        if !is_good(namespace, 63) || !is_good(name, 253) {
            return Err(PolicyNameError(format!("{namespace}/{name}").chars().take(330).collect()));
        }
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The object's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Made of a PeerAuthentication: no object is called so.
    pub fn is_converted(&self) -> bool {
        *self.name == *STATIC_STRICT || self.name.starts_with(CONVERTED_PREFIX)
    }
}

impl FromStr for PolicyName {
    type Err = PolicyNameError;

    fn from_str(text: &str) -> Result<Self, PolicyNameError> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| PolicyNameError(text.chars().take(330).collect()))?;
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for PolicyName {
    type Error = PolicyNameError;

    fn try_from(text: String) -> Result<Self, PolicyNameError> {
        text.parse()
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which workloads a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyScope {
    /// Every workload of the mesh.
    #[default]
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that name it in [`Workload::authorization_policies`](super::Workload::authorization_policies).
    Workload,
}

/// What a policy does with a connection that one of its rules matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyAction {
    /// Permits it, unless another policy denies it. Whoever has such a policy takes nothing else.
    #[default]
    Allow,
    /// Denies it.
    Deny,
}

/// An AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationPolicy {
    /// Namespace and name of the object.
    pub name: PolicyName,
    /// Which workloads it is for.
    pub scope: PolicyScope,
    /// What it does.
    pub action: PolicyAction,
    /// Annotated `istio.io/dry-run: "true"`: evaluated and shown, never enforced.
    #[serde(default)]
    pub dry_run: bool,
    /// It concerns connections to these ports of a workload alone, as one that is attached to a service does: to others it
    /// says nothing, and ALLOW is not asked for there. None: it concerns all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_ports: Option<Vec<u16>>,
    /// It matches when any of these does; without any it matches nothing.
    pub rules: Vec<PolicyRule>,
}

/// A rule: matches when every clause holds; without any clause it matches every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Its place in the object's `rules`, for people.
    pub index: u32,
    /// What its `from`, its `to` and each `when` say. One holds when any of its matches does, so one **without matches
    /// never holds**: what constrains nothing is no clause.
    pub clauses: Vec<Vec<PolicyMatch>>,
}

/// Conditions that must all hold. A positive list that is not empty holds when any of its values matches, a `not_` list
/// when none does. Without any condition it holds for every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyMatch {
    /// Namespace in the client's proven identity; without one nothing matches. So for the next three.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<StringMatch>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<StringMatch>,
    /// `<trust domain>/ns/<namespace>/sa/<service account>` of the client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<StringMatch>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<StringMatch>,
    /// Service account of the client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// Trust domain of the client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust_domains: Vec<StringMatch>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_trust_domains: Vec<StringMatch>,
    /// `ipBlocks`, `source.ip`: the connection's direct peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<Cidr>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_source_ips: Vec<Cidr>,
    /// `remoteIpBlocks`, `remote.ip`: the client behind trusted proxies; the direct peer where nobody names one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remote_ips: Vec<Cidr>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_remote_ips: Vec<Cidr>,
    /// The address of the workload that was dialled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ips: Vec<Cidr>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ips: Vec<Cidr>,
    /// The port of the workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
    /// `connection.sni`: the server name in the client's own TLS, where that is looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<StringMatch>,
    /// The same, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_server_names: Vec<StringMatch>,
}

/// How a text is matched; always case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StringMatch {
    /// `abc`.
    Exact(Arc<str>),
    /// `abc*`, without the star.
    Prefix(Arc<str>),
    /// `*abc`, without the star.
    Suffix(Arc<str>),
    /// `*`: there, and not empty.
    Presence,
    /// `a*b`, in namespaces: each star stands for any text, also none.
    Glob(Arc<str>),
}

/// One service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceAccountMatch {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub service_account: Arc<str>,
}

/// A range of addresses. Always in canonical form: no bits beyond the prefix, no IPv4 within IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// Why a text or a pair is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor address/prefix length")]
pub struct CidrError(String);

impl Cidr {
    /// The range of the addresses that share their first `length` bits with `address`.
    ///
    /// # Errors
    /// When the address has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, CidrError> {
        let too_long = || CidrError(format!("{address}/{length}"));
        let (address, length) = match (address.to_canonical(), address) {
            (IpAddr::V4(v4), IpAddr::V6(_)) if (96..=128).contains(&length) => (IpAddr::V4(v4), length - 96),
            _ => (address, length),
        };
        let network = match address {
            IpAddr::V4(v4) => {
                let host = 32_u32.checked_sub(length.into()).ok_or_else(too_long)?;
                IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(host).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => {
                let host = 128_u32.checked_sub(length.into()).ok_or_else(too_long)?;
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & u128::MAX.checked_shl(host).unwrap_or(0)))
            }
        };
        Ok(Self { address: network, length })
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many leading bits its addresses share.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether `ip` is one of its addresses; IPv4 within IPv6 counts as IPv4.
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let differ = u32::from(own) ^ u32::from(ip);
                differ.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let differ = u128::from(own) ^ u128::from(ip);
                differ.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(ip: IpAddr) -> Self {
        let address = ip.to_canonical();
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.chars().take(60).collect());
        match text.split_once('/') {
            Some((ip, length)) => {
                let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse().ok().filter(|_| is_number).ok_or_else(error)?;
                Self::new(ip.parse().map_err(|_| error())?, length)
            }
            None => text.parse::<IpAddr>().map(Self::from).map_err(|_| error()),
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_canonical() {
        for (text, shown) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fd00::1", "fd00::1/128"),
            ("fd00::1/64", "fd00::/64"),
            ("::/0", "::/0"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for bad in ["", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/+8", "fd00::/129", "web", "10.0.0/8", "/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ranges_hold_their_addresses() {
        for (range, ip, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "1.2.3.4", false),
            ("fd00::/64", "fd00::9", true),
            ("fd00::/64", "fd00:0:0:1::9", false),
        ] {
            let holding = range.parse::<Cidr>().unwrap().contains(ip.parse().unwrap());
            assert_eq!(holding, holds, "{ip} in {range}");
        }
    }

    #[test]
    fn names_are_checked() {
        for good in ["shop/web", "istio-system/istio_converted_static_strict", "a/b.c"] {
            assert_eq!(good.parse::<PolicyName>().unwrap().to_string(), good);
        }
        for bad in ["", "web", "/web", "shop/", "shop/web/x", "Shop/web", "shop/w b", "shop/ä", "a/b]"] {
            assert!(bad.parse::<PolicyName>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[0-9a-f.:/+]{0,50}") {
            if let Ok(cidr) = text.parse::<Cidr>() {
                prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
                prop_assert!(cidr.contains(cidr.address()));
            }
        }
    }
}
