//! What is said about a route of the Gateway API to its author, for each service that it is attached to. Pure.

use super::ResolveConfig;
use super::traffic::route::{Refusal, Unresolved, backend, older, refusal};
use crate::index::Index;
use crate::objects::{BackendRef, ParentRef, Refused, Route, RouteRule};

/// The conditions of a route for one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// The parent, as the route names it.
    pub parent: ParentRef,
    /// In the order of their types.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `PartiallyInvalid` or `ResolvedRefs`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// In one word, for programs.
    pub reason: &'static str,
    /// In a sentence, for people.
    pub message: String,
    /// The version of the route that it is about.
    pub generation: i64,
}

/// The status of a route for each of its parents that is a service. A service that does not exist says nothing, and
/// gateways are not ours.
pub fn route_status(index: &Index, config: &ResolveConfig, route: &Route) -> Vec<ParentStatus> {
    let services = route.services().filter_map(|(name, parent)| Some((index.service(&name)?, parent)));
    services
        .map(|(service, parent)| {
            let refusal = refusal(index, service, route, parent);
            let mut conditions = vec![accepted(refusal, route, || {
                let older = older(index, service, route, parent);
                older.values().next().map_or("agents apply it".to_owned(), |other| {
                    format!("the older TCPRoute {} counts where both are attached", other.name)
                })
            })];
            conditions.extend(partly_invalid(route));
            conditions.extend((!route.is_unread()).then(|| resolved(index, config, route)));
            ParentStatus { parent: parent.clone(), conditions }
        })
        .collect()
}

fn condition(
    route: &Route,
    kind: &'static str,
    reason: &'static str,
    message: impl Into<String>,
) -> Condition {
    Condition { kind, holds: reason == kind, reason, message: message.into(), generation: route.generation }
}

fn accepted(refusal: Option<Refusal>, route: &Route, how: impl FnOnce() -> String) -> Condition {
    const KIND: &str = "Accepted";
    let condition = |reason, message: &str| condition(route, KIND, reason, message);
    match refusal {
        None => match broken(route).find(|_| route.rules.iter().all(is_dropped)) {
            Some(Broken { filter, .. }) => condition("UnsupportedValue", filter),
            None => condition(KIND, &how()),
        },
        Some(Refusal::NoSuchPort) => {
            condition("NoMatchingParent", "the Service has no TCP port of this name or number")
        }
        Some(Refusal::Unattachable) => {
            condition("UnsupportedValue", "the Service has no address of its own that clients could mean")
        }
        Some(Refusal::Unsupported) => {
            condition("UnsupportedValue", route.unsupported.as_deref().unwrap_or_default())
        }
        Some(Refusal::Conflicted) => {
            condition("Conflicted", "routes of a more specific kind are attached to the same port")
        }
    }
}

/// A filter that cannot be applied.
struct Broken<'a> {
    filter: &'a str,
    /// Of one backend, not of the whole rule.
    of_backend: bool,
}

/// What of it cannot be applied; requests that meet it get 500.
fn broken(route: &Route) -> impl Iterator<Item = Broken<'_>> {
    route.rules.iter().flat_map(|rule| {
        let of_rule = rule.filters.broken.iter().map(|filter| (filter, false));
        let of_backends = rule.backends.iter().filter_map(|to| to.filters.broken.as_ref());
        let all = of_rule.chain(of_backends.map(|filter| (filter, true)));
        all.map(|(filter, of_backend)| Broken { filter, of_backend })
    })
}

/// Whether no request that meets a rule is sent anywhere, for want of a filter.
fn is_dropped(rule: &RouteRule) -> bool {
    let mut backends = rule.backends.iter().filter(|to| to.weight > 0).peekable();
    rule.filters.broken.is_some()
        || (backends.peek().is_some() && backends.all(|to| to.filters.broken.is_some()))
}

/// Says which rules count for less than they say, or that older ones count: the two ways that the API knows ("Dropped Rule",
/// "Fall Back"). The condition is of the newer version then, the others of the one that counts.
fn partly_invalid(route: &Route) -> Option<Condition> {
    let condition = |generation, message| Condition {
        kind: "PartiallyInvalid",
        holds: true,
        reason: "UnsupportedValue",
        message,
        generation,
    };
    if let Some(Refused { generation, why }) = &route.newer {
        let message =
            format!("Fall Back: {why}; the version before it (generation {}) stays", route.generation);
        return Some(condition(*generation, message));
    }
    let Broken { filter, of_backend } = broken(route).find(|_| !route.rules.iter().all(is_dropped))?;
    let what = if of_backend { "requests that this backend would get" } else { "requests that meet it" };
    Some(condition(route.generation, format!("Dropped Rule: {filter}; {what} get 500")))
}

fn resolved(index: &Index, config: &ResolveConfig, route: &Route) -> Condition {
    const KIND: &str = "ResolvedRefs";
    let wrong = |to: &BackendRef| backend(index, config, route, to).err();
    let (reason, message) = match route.targets().find_map(wrong) {
        None => (KIND, "every reference leads to a service".to_owned()),
        Some((Unresolved::Kind, why)) => ("InvalidKind", why),
        Some((Unresolved::Missing, why)) => ("BackendNotFound", why),
        Some((Unresolved::Protocol, why)) => ("UnsupportedProtocol", why),
    };
    condition(route, KIND, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::ResourceKey;
    use crate::objects::{Key, Kind, Name, Object};
    use crate::resolve::resolve;
    use crate::resolve::tests::{config, index};
    use crate::source::Change;
    use warren_common::model::ServiceName;

    const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: other, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
";

    fn route(kind: &str, parents: &str, rules: &str) -> String {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{parentRefs: [{parents}], rules: [{rules}]}}\n"
        )
    }

    #[test]
    fn conditions_say_what_became_of_a_route() {
        let parent = |more: &str| format!("{{group: '', kind: Service{more}}}");
        let good = "{backendRefs: [{name: web, port: 80}]}";
        let broken = "{filters: [{type: ExtensionRef, extensionRef: {name: x}}]}";
        let odd = "{name: web, port: 80, filters: [{type: ExtensionRef, extensionRef: {name: x}}]}";
        let web = &parent(", name: web");
        for (parents, rules, expected) in [
            (web.clone(), good.to_owned(), "web Accepted ResolvedRefs"),
            (parent(", name: web, port: 9"), good.to_owned(), "web !NoMatchingParent ResolvedRefs"),
            (parent(", name: web, sectionName: x"), good.to_owned(), "web !NoMatchingParent ResolvedRefs"),
            (parent(", name: headless"), good.to_owned(), "headless !UnsupportedValue ResolvedRefs"),
            (parent(", name: none"), good.to_owned(), ""),
            ("{name: edge}".to_owned(), good.to_owned(), ""),
            (
                format!("{web}, {}", parent(", name: headless")),
                good.to_owned(),
                "web Accepted ResolvedRefs; headless !UnsupportedValue ResolvedRefs",
            ),
            (
                web.clone(),
                "{backendRefs: [{name: none, port: 80}]}".to_owned(),
                "web Accepted !BackendNotFound",
            ),
            (web.clone(), "{backendRefs: [{name: web}]}".to_owned(), "web Accepted !BackendNotFound"),
            (
                web.clone(),
                "{backendRefs: [{kind: Thing, name: web, port: 80}]}".to_owned(),
                "web Accepted !InvalidKind",
            ),
            (web.clone(), "{matches: [{method: FETCH}]}".to_owned(), "web !UnsupportedValue ResolvedRefs"),
            (web.clone(), broken.to_owned(), "web !UnsupportedValue ResolvedRefs"),
            (web.clone(), format!("{good}, {broken}"), "web Accepted UnsupportedValue ResolvedRefs"),
            (web.clone(), format!("{{backendRefs: [{odd}]}}"), "web !UnsupportedValue ResolvedRefs"),
            (
                web.clone(),
                format!("{{backendRefs: [{odd}, {{name: web, port: 80}}]}}"),
                "web Accepted UnsupportedValue ResolvedRefs",
            ),
            (
                web.clone(),
                format!("{{backendRefs: [{odd}, {{name: web, port: 80, weight: 0}}]}}, {broken}"),
                "web !UnsupportedValue ResolvedRefs",
            ),
        ] {
            assert_eq!(
                said(&route("HTTPRoute", &parents, &rules), Kind::HTTPRoute),
                expected,
                "{parents} {rules}"
            );
        }
        let both =
            route("HTTPRoute", web, good) + &route("GRPCRoute", &parent(", name: web, port: 80"), good);
        assert_eq!(said(&both, Kind::HTTPRoute), "web Accepted ResolvedRefs");
        let both = route("HTTPRoute", web, good) + &route("GRPCRoute", web, good);
        assert_eq!(said(&both, Kind::HTTPRoute), "web !Conflicted ResolvedRefs");
        assert_eq!(said(&both, Kind::GRPCRoute), "web Accepted ResolvedRefs");
    }

    #[test]
    fn requests_are_not_sent_to_ports_of_other_protocols() {
        let speaks = |protocol: &str| {
            let parent = "{group: '', kind: Service, name: web}";
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: shop}}\n\
                 spec: {{clusterIP: 10.0.0.2, ports: [{{port: 80, appProtocol: '{protocol}'}}]}}\n{}",
                route("HTTPRoute", parent, "{backendRefs: [{name: b, port: 80}]}")
            )
        };
        let originates = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                          metadata: {name: d, namespace: shop}\nspec: {host: b, trafficPolicy: {tls: {mode: SIMPLE}}}\n";
        for (objects, expected) in [
            (speaks("http"), "web Accepted ResolvedRefs"),
            (speaks("kubernetes.io/ws"), "web Accepted ResolvedRefs"),
            (speaks("kubernetes.io/wss"), "web Accepted !UnsupportedProtocol"),
            (speaks("https"), "web Accepted !UnsupportedProtocol"),
            (speaks("https") + originates, "web Accepted ResolvedRefs"),
            (speaks("redis") + originates, "web Accepted !UnsupportedProtocol"),
        ] {
            assert_eq!(said(&objects, Kind::HTTPRoute), expected, "{objects}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_of_its_own_generation() {
        let parent = "{group: '', kind: Service, name: web}";
        let good = route("HTTPRoute", parent, "{backendRefs: [{name: web, port: 80}]}");
        let mut index = index(&format!("{SERVICES}{good}"));
        let name = Name::new("shop", "r");
        let told = |index: &Index| {
            let status = route_status(index, &config(), index.route(Kind::HTTPRoute, &name).unwrap());
            let said = |one: &Condition| format!("{} {} {}", one.generation, one.kind, one.message);
            status[0].conditions.iter().map(said).collect::<Vec<_>>()
        };
        let key = Key { kind: Kind::HTTPRoute, name: name.clone() };
        let refused = Refused { generation: 5, why: "spec: odd".to_owned() };
        let affected = index.apply(&Change::Refused(key, refused));
        assert!(affected.is_empty(), "{affected:?}");
        assert_eq!(
            told(&index),
            [
                "0 Accepted agents apply it",
                "5 PartiallyInvalid Fall Back: spec: odd; the version before it (generation 0) stays",
                "0 ResolvedRefs every reference leads to a service",
            ]
        );
        let mut unread = index.route(Kind::HTTPRoute, &name).unwrap().clone();
        (unread.rules, unread.unsupported, unread.newer) = (Vec::new(), Some("spec: odd".to_owned()), None);
        unread.generation = 6;
        index.apply(&Change::Upsert(Object::Route(Box::new(unread))));
        assert_eq!(told(&index), ["6 Accepted spec: odd"]);
        let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() };
        assert!(resolve(&index, &config(), &ResourceKey::Traffic(web)).resource.is_none());
    }

    #[test]
    fn routes_of_connections_have_the_same_conditions() {
        let web = "{group: '', kind: Service, name: web}";
        let named = format!("{web}], hostnames: [a.example");
        for (kind, parents, name) in [(Kind::TCPRoute, web, "TCPRoute"), (Kind::TLSRoute, &named, "TLSRoute")]
        {
            let to = |backend: &str| route(name, parents, &format!("{{backendRefs: [{backend}]}}"));
            assert_eq!(said(&to("{name: web, port: 80}"), kind), "web Accepted ResolvedRefs");
            assert_eq!(said(&to("{name: none, port: 80}"), kind), "web Accepted !BackendNotFound");
        }
        // Of two TCPRoutes on a port the older one counts, and both are accepted.
        let good = "{backendRefs: [{name: web, port: 80}]}";
        let both =
            route("TCPRoute", web, good) + &route("TCPRoute", web, good).replace("name: r,", "name: q,");
        assert_eq!(said(&both, Kind::TCPRoute), "web Accepted ResolvedRefs");
        let index = index(&format!("{SERVICES}{both}"));
        let younger = index.route(Kind::TCPRoute, &Name::new("shop", "r")).unwrap();
        let message = &route_status(&index, &config(), younger)[0].conditions[0].message;
        assert_eq!(message, "the older TCPRoute shop/q counts where both are attached");
        let elsewhere = "{group: '', kind: Service, name: web, port: 9}";
        let tcp = route("TCPRoute", elsewhere, good);
        assert_eq!(said(&tcp, Kind::TCPRoute), "web !NoMatchingParent ResolvedRefs");
        let both = route("TCPRoute", web, good) + &route("HTTPRoute", web, good);
        assert_eq!(said(&both, Kind::TCPRoute), "web !Conflicted ResolvedRefs");
    }

    fn said(routes: &str, kind: Kind) -> String {
        let index = index(&format!("{SERVICES}{routes}"));
        let status = route_status(&index, &config(), index.route(kind, &Name::new("shop", "r")).unwrap());
        let parents = status.iter().map(|status| {
            let conditions = status.conditions.iter().map(|one| match one.holds {
                true => one.reason.to_owned(),
                false => format!("!{}", one.reason),
            });
            format!("{} {}", status.parent.name, conditions.collect::<Vec<_>>().join(" "))
        });
        parents.collect::<Vec<_>>().join("; ")
    }
}
