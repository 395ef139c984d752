//! What is said about a route of the Gateway API to its author, for each service that it is attached to. Pure.

use super::ResolveConfig;
use super::traffic::route::{Refusal, Unresolved, backend, refusal};
use crate::index::Index;
use crate::objects::{BackendRef, ParentRef, Route};

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
}

/// The status of a route for each of its parents that is a service. A service that does not exist says nothing, and
/// gateways are not ours.
pub fn route_status(index: &Index, config: &ResolveConfig, route: &Route) -> Vec<ParentStatus> {
    let services = route.services().filter_map(|(name, parent)| Some((index.service(&name)?, parent)));
    services
        .map(|(service, parent)| {
            let mut conditions = vec![accepted(refusal(index, service, route, parent), route)];
            conditions.extend(partly_invalid(route));
            conditions.push(resolved(index, config, route));
            ParentStatus { parent: parent.clone(), conditions }
        })
        .collect()
}

fn condition(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind, holds: reason == kind, reason, message: message.into() }
}

fn accepted(refusal: Option<Refusal>, route: &Route) -> Condition {
    const KIND: &str = "Accepted";
    match refusal {
        None if broken(route).count() == route.rules.len() => {
            let message = broken(route).next().unwrap_or_default();
            condition(KIND, "UnsupportedValue", message)
        }
        None => condition(KIND, KIND, "agents apply it"),
        Some(Refusal::NoSuchPort) => {
            condition(KIND, "NoMatchingParent", "the Service has no TCP port of this name or number")
        }
        Some(Refusal::Unattachable) => condition(
            KIND,
            "UnsupportedValue",
            "the Service has no address of its own that clients could mean",
        ),
        Some(Refusal::Unsupported) => {
            condition(KIND, "UnsupportedValue", route.unsupported.clone().unwrap_or_default())
        }
        Some(Refusal::Conflicted) => {
            condition(KIND, "Conflicted", "routes of a more specific kind are attached to the same port")
        }
    }
}

/// Rules that cannot be applied; requests that meet them get 500.
fn broken(route: &Route) -> impl Iterator<Item = &str> {
    route.rules.iter().filter_map(|rule| rule.filters.broken.as_deref())
}

fn partly_invalid(route: &Route) -> Option<Condition> {
    let count = broken(route).count();
    if count == 0 || count == route.rules.len() {
        return None;
    }
    let message = format!("Dropped Rule: {}; requests that meet it get 500", broken(route).next()?);
    Some(Condition { kind: "PartiallyInvalid", holds: true, reason: "UnsupportedValue", message })
}

fn resolved(index: &Index, config: &ResolveConfig, route: &Route) -> Condition {
    const KIND: &str = "ResolvedRefs";
    let wrong = |to: &BackendRef| backend(index, config, &route.name.namespace, to).err();
    match route.targets().find_map(wrong) {
        None => condition(KIND, KIND, "every reference leads to a service"),
        Some((Unresolved::Kind, why)) => condition(KIND, "InvalidKind", why),
        Some((Unresolved::Missing, why)) => condition(KIND, "BackendNotFound", why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Kind, Name};
    use crate::resolve::tests::{config, index};

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
    fn routes_of_connections_have_the_same_conditions() {
        let web = "{group: '', kind: Service, name: web}";
        let named = format!("{web}], hostnames: [a.example");
        for (kind, parents, name) in [(Kind::TCPRoute, web, "TCPRoute"), (Kind::TLSRoute, &named, "TLSRoute")]
        {
            let to = |backend: &str| route(name, parents, &format!("{{backendRefs: [{backend}]}}"));
            assert_eq!(said(&to("{name: web, port: 80}"), kind), "web Accepted ResolvedRefs");
            assert_eq!(said(&to("{name: none, port: 80}"), kind), "web Accepted !BackendNotFound");
        }
        let elsewhere = "{group: '', kind: Service, name: web, port: 9}";
        let good = "{backendRefs: [{name: web, port: 80}]}";
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
