//! The DestinationRule that is in force for a client, a port and a subset (reference 4.2, 4.3).

use crate::route::http::ClientView;
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::model::traffic::{
    ConnectionPool, ObjectName, PortPolicy, ScopedPolicy, Selector, Subset, TlsMode, TlsOrigination, Traffic,
    TrafficPolicy,
};

/// A retry budget of which only one part is written has this share.
const DEFAULT_BUDGET_PERCENT: u8 = 20;
/// And always allows so many.
const DEFAULT_BUDGET_MIN: u32 = 3;

/// What is in force for connections to a port of a service, or of a subset of its endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    /// What says so; none: nothing, these are the defaults.
    pub objects: Vec<ObjectName>,
    /// Balancer, pool, outliers, TLS.
    pub policy: PortPolicy,
    /// Retries at a time.
    pub retry_budget: Option<RetryBudget>,
    /// Labels that endpoints have to have; those of the subset.
    pub labels: Selector,
}

impl Effective {
    /// Whether it says nothing: endpoints are used as without a DestinationRule.
    pub fn is_nothing(&self) -> bool {
        self.policy == PortPolicy::default() && self.retry_budget.is_none()
    }

    /// Whether it leaves the choice of an endpoint, and how much is open there, as it is without a DestinationRule.
    pub fn counts_nothing(&self) -> bool {
        let PortPolicy { balancer, pool, outliers, tls: _ } = &self.policy;
        balancer.is_none() && pool.is_none() && outliers.is_none() && self.retry_budget.is_none()
    }

    /// Whether any of it is about requests, where requests are known to be what is carried. So is what a pool says of
    /// connections: they are those that requests wait for, and share.
    pub fn is_about_requests(&self) -> bool {
        let PortPolicy { balancer, pool, outliers, tls } = &self.policy;
        let is_originated = |tls: &TlsOrigination| matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
        balancer.is_some()
            || outliers.is_some()
            || self.retry_budget.is_some()
            || pool.as_ref().is_some_and(|pool| *pool != ConnectionPool::default())
            || tls.as_ref().is_some_and(is_originated)
    }
}

/// Retries at a time, as a share of what is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Percent of the requests that are active or wait.
    pub percent: u8,
    /// So many are always allowed.
    pub min: u32,
}

/// The subset is not defined for this client: such requests fail (Istio: 503, `NC`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no DestinationRule that is for this client defines the subset {subset} of {service}")]
pub struct NoSuchSubset {
    /// The subset.
    pub subset: Arc<str>,
    /// The service, for people.
    pub service: Arc<str>,
}

/// What is in force for `client`, `port` of the service, and the subset that a route names.
///
/// # Errors
/// [`NoSuchSubset`].
pub fn effective(
    traffic: &Traffic,
    client: &ClientView<'_>,
    port: u16,
    subset: Option<&str>,
) -> Result<Effective, NoSuchSubset> {
    let scoped = traffic.policies.iter().find(|one| one.clients.hold(client.namespace, client.labels));
    let of_name = |name: &str| {
        let found = scoped.and_then(|scoped| scoped.subsets.iter().find(|subset| *subset.name == *name));
        found.ok_or_else(|| NoSuchSubset {
            subset: name.into(),
            service: Arc::clone(&traffic.service.hostname),
        })
    };
    let subset = subset.map(of_name).transpose()?;
    Ok(scoped.map(|scoped| combined(scoped, port, subset)).unwrap_or_default())
}

/// The same of `service`, whether anything is said about the traffic to it or not.
///
/// # Errors
/// [`NoSuchSubset`].
pub fn in_force(
    traffic: Option<&Traffic>,
    service: &ServiceName,
    client: &ClientView<'_>,
    port: u16,
    subset: Option<&str>,
) -> Result<Effective, NoSuchSubset> {
    match (traffic, subset) {
        (Some(traffic), subset) => effective(traffic, client, port, subset),
        (None, Some(subset)) => {
            Err(NoSuchSubset { subset: subset.into(), service: Arc::clone(&service.hostname) })
        }
        (None, None) => Ok(Effective::default()),
    }
}

fn combined(scoped: &ScopedPolicy, port: u16, subset: Option<&Subset>) -> Effective {
    let mut policy = of_port(&scoped.policy, port).clone();
    let mut budget = budget(&scoped.policy);
    if let Some(subset) = subset {
        match subset.policy.ports.get(&port) {
            Some(own) => policy = own.clone(),
            None => overlay(&mut policy, &subset.policy.all),
        }
        budget = self::budget(&subset.policy).or(budget);
    }
    let labels = subset.map(|subset| subset.labels.clone()).unwrap_or_default();
    Effective { objects: scoped.objects.clone(), policy, retry_budget: budget, labels }
}

/// An entry of the port replaces everything, what is absent in it included.
fn of_port(policy: &TrafficPolicy, port: u16) -> &PortPolicy {
    policy.ports.get(&port).unwrap_or(&policy.all)
}

/// What is present replaces what was there, as a whole.
fn overlay(policy: &mut PortPolicy, own: &PortPolicy) {
    let PortPolicy { balancer, pool, outliers, tls } = own.clone();
    policy.balancer = balancer.or(policy.balancer.take());
    policy.pool = pool.or(policy.pool.take());
    policy.outliers = outliers.or(policy.outliers.take());
    policy.tls = tls.or(policy.tls.take());
}

fn budget(policy: &TrafficPolicy) -> Option<RetryBudget> {
    let (percent, min) = (policy.retry_budget_percent, policy.retry_budget_min);
    (percent.is_some() || min.is_some()).then(|| RetryBudget {
        percent: percent.unwrap_or(DEFAULT_BUDGET_PERCENT),
        min: min.unwrap_or(DEFAULT_BUDGET_MIN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_common::model::traffic::{Balancer, Clients, SimpleBalancer};

    fn policy(balancer: Option<SimpleBalancer>, max_requests: Option<u32>) -> PortPolicy {
        PortPolicy {
            balancer: balancer.map(|simple| Balancer { simple, ..Balancer::default() }),
            pool: max_requests
                .map(|max| ConnectionPool { max_requests: Some(max), ..ConnectionPool::default() }),
            ..PortPolicy::default()
        }
    }

    fn traffic_policy(all: PortPolicy, ports: Vec<(u16, PortPolicy)>) -> TrafficPolicy {
        TrafficPolicy { all, ports: ports.into_iter().collect(), ..TrafficPolicy::default() }
    }

    fn scoped(name: &str, policy: TrafficPolicy, subsets: Vec<(&str, TrafficPolicy)>) -> ScopedPolicy {
        let subset = |(name, policy): (&str, TrafficPolicy)| Subset {
            name: name.into(),
            labels: [("version".into(), name.into())].into(),
            policy,
        };
        ScopedPolicy {
            clients: Clients::default(),
            objects: vec![ObjectName {
                kind: "DestinationRule".into(),
                namespace: "shop".into(),
                name: name.into(),
            }],
            policy,
            subsets: subsets.into_iter().map(subset).collect(),
        }
    }

    fn of(
        policies: &[ScopedPolicy],
        namespace: &str,
        port: u16,
        subset: Option<&str>,
    ) -> Result<Effective, NoSuchSubset> {
        let service = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() };
        let traffic = Traffic { service, tables: vec![], policies: policies.to_vec(), refused: None };
        let labels = Default::default();
        effective(&traffic, &ClientView { namespace, labels: &labels }, port, subset)
    }

    fn seen(effective: &Effective) -> (Option<SimpleBalancer>, Option<u32>) {
        let PortPolicy { balancer, pool, .. } = &effective.policy;
        let max = pool.as_ref().and_then(|pool| pool.max_requests);
        (balancer.as_ref().map(|balancer| balancer.simple), max)
    }

    /// Every row of the override rules.
    #[test]
    fn ports_replace_and_subsets_overlay() {
        use SimpleBalancer::{Passthrough, Random, RoundRobin};
        let everywhere = policy(Some(RoundRobin), Some(1));
        let rule = scoped(
            "web",
            traffic_policy(everywhere, vec![(81, policy(Some(Random), None)), (82, PortPolicy::default())]),
            vec![
                ("none", TrafficPolicy::default()),
                ("some", traffic_policy(policy(None, Some(2)), vec![])),
                (
                    "port",
                    traffic_policy(
                        policy(None, Some(3)),
                        vec![(81, policy(Some(Passthrough), None)), (80, PortPolicy::default())],
                    ),
                ),
            ],
        );
        for (subset, port, expected) in [
            (None, 80, (Some(RoundRobin), Some(1))),
            // An entry for the port: what is absent in it is the default, not what the service says.
            (None, 81, (Some(Random), None)),
            (None, 82, (None, None)),
            (Some("none"), 80, (Some(RoundRobin), Some(1))),
            (Some("none"), 81, (Some(Random), None)),
            (Some("some"), 80, (Some(RoundRobin), Some(2))),
            (Some("some"), 81, (Some(Random), Some(2))),
            (Some("some"), 82, (None, Some(2))),
            (Some("port"), 80, (None, None)),
            (Some("port"), 81, (Some(Passthrough), None)),
            (Some("port"), 82, (None, Some(3))),
        ] {
            let effective = of(std::slice::from_ref(&rule), "shop", port, subset).unwrap();
            assert_eq!(seen(&effective), expected, "{subset:?} {port}");
            assert_eq!(effective.labels.is_empty(), subset.is_none());
        }
    }

    #[test]
    fn whole_parts_replace_each_other() {
        let mut base = policy(None, Some(1));
        base.pool.as_mut().unwrap().max_connections = Some(9);
        let tls = TlsOrigination {
            mode: TlsMode::Simple,
            sni: None,
            subject_alt_names: vec![],
            insecure_skip_verify: false,
            ca_file: None,
            certificate_file: None,
            key_file: None,
        };
        base.tls = Some(tls.clone());
        let rule = scoped(
            "web",
            traffic_policy(base, vec![]),
            vec![("v1", traffic_policy(policy(None, Some(2)), vec![]))],
        );
        let effective = of(&[rule], "shop", 80, Some("v1")).unwrap();
        let pool = effective.policy.pool.unwrap();
        assert_eq!((pool.max_requests, pool.max_connections), (Some(2), None), "no deep merge");
        assert_eq!(effective.policy.tls, Some(tls));
    }

    #[test]
    fn the_first_policy_for_the_client_hides_the_others() {
        let own = ScopedPolicy {
            clients: Clients { namespaces: Some(vec!["bank".into()]), ..Clients::default() },
            ..scoped("own", TrafficPolicy::default(), vec![])
        };
        let all = scoped("all", TrafficPolicy::default(), vec![("v1", TrafficPolicy::default())]);
        let policies = [own, all];
        let object = |namespace| of(&policies, namespace, 80, None).unwrap().objects[0].name.to_string();
        assert_eq!((object("bank"), object("shop")), ("own".into(), "all".into()));
        assert!(of(&policies, "shop", 80, Some("v1")).is_ok());
        let hidden = of(&policies, "bank", 80, Some("v1")).unwrap_err();
        assert!(hidden.to_string().contains("the subset v1 of web.shop.svc"), "subsets are hidden too");
        assert!(of(&[], "shop", 80, Some("v1")).is_err());
        assert_eq!(of(&[], "shop", 80, None).unwrap(), Effective::default());
    }

    #[test]
    fn what_is_about_requests() {
        let effective = |policy| Effective { policy, ..Effective::default() };
        let pool = |pool| PortPolicy { pool: Some(pool), ..PortPolicy::default() };
        let tls = |mode| {
            let tls = TlsOrigination {
                mode,
                sni: None,
                subject_alt_names: vec![],
                insecure_skip_verify: false,
                ca_file: None,
                certificate_file: None,
                key_file: None,
            };
            PortPolicy { tls: Some(tls), ..PortPolicy::default() }
        };
        let of_pool = |change: fn(&mut ConnectionPool)| {
            let mut said = ConnectionPool::default();
            change(&mut said);
            pool(said)
        };
        for (policy, nothing, expected) in [
            (PortPolicy::default(), true, false),
            (policy(Some(SimpleBalancer::Random), None), false, true),
            (pool(ConnectionPool::default()), false, false),
            (of_pool(|pool| pool.max_connections = Some(1)), false, true),
            (of_pool(|pool| pool.connect_timeout_ms = Some(1)), false, true),
            (of_pool(|pool| pool.max_connection_duration_ms = Some(1)), false, true),
            (of_pool(|pool| pool.idle_timeout_ms = Some(1)), false, true),
            (of_pool(|pool| pool.keepalive = Some((1, 1, 1))), false, true),
            (of_pool(|pool| pool.max_requests = Some(1)), false, true),
            (tls(TlsMode::Simple), false, true),
            (tls(TlsMode::IstioMutual), false, false),
            (tls(TlsMode::Disable), false, false),
        ] {
            let effective = effective(policy);
            assert_eq!((effective.is_nothing(), effective.is_about_requests()), (nothing, expected));
        }
        let budget = Some(RetryBudget { percent: 20, min: 3 });
        assert!(Effective { retry_budget: budget, ..Effective::default() }.is_about_requests());
    }

    #[test]
    fn retry_budgets() {
        let with = |percent, min| TrafficPolicy {
            retry_budget_percent: percent,
            retry_budget_min: min,
            ..TrafficPolicy::default()
        };
        let rule =
            scoped("web", with(Some(50), None), vec![("a", with(None, None)), ("b", with(None, Some(1)))]);
        let budget = |subset| of(std::slice::from_ref(&rule), "shop", 80, subset).unwrap().retry_budget;
        assert_eq!(budget(None), Some(RetryBudget { percent: 50, min: 3 }));
        assert_eq!(budget(Some("a")), budget(None));
        assert_eq!(budget(Some("b")), Some(RetryBudget { percent: 20, min: 1 }));
    }
}
