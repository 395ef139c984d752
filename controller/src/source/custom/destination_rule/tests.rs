//! DestinationRules as people write them.

use crate::objects::{DestinationRule, Object};
use crate::source::custom::tests::read;
use warren_common::model::traffic::{HashKey, HashRing, SimpleBalancer, TlsMode};

fn rule(spec: &str) -> Result<DestinationRule, String> {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\n\
         metadata: {{name: web, namespace: shop}}\nspec: {{host: web, {spec}}}\n"
    );
    match read(&yaml)? {
        Object::DestinationRule(rule) => Ok(*rule),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rules_are_read() {
    let read = rule(
        "exportTo: ['*'], trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, portLevelSettings: [{port: {number: 80}, \
         connectionPool: {http: {http1MaxPendingRequests: 1}}}], retryBudget: {percent: 12.5}}, \
         subsets: [{name: v1, labels: {version: v1}}, {name: v2, trafficPolicy: {tls: {mode: SIMPLE}}}]",
    )
    .unwrap();
    let policy = read.policy.unwrap();
    assert_eq!(policy.all.balancer.unwrap().simple, SimpleBalancer::RoundRobin);
    assert_eq!(policy.ports[&80].pool.as_ref().unwrap().max_pending_requests, Some(1));
    assert_eq!((policy.retry_budget_percent, policy.retry_budget_min), (Some(13), Some(3)));
    assert_eq!(read.subsets[0].labels.len(), 1);
    assert_eq!(read.subsets[1].policy.all.tls.as_ref().unwrap().mode, TlsMode::Simple);
    assert!(read.exported_to.is_none() && read.notes.is_empty());
    // For clients of its own namespace, whatever it exports itself to.
    let selecting = rule(
        "exportTo: ['*'], workloadSelector: {matchLabels: {app: a}}, trafficPolicy: {tls: {mode: DISABLE}}",
    );
    let selecting = selecting.unwrap();
    assert_eq!((selecting.clients.unwrap().len(), selecting.exported_to.unwrap().len()), (1, 1));
}

#[test]
fn balancers_are_read() {
    let balancer = |text: &str| {
        rule(&format!("trafficPolicy: {{loadBalancer: {{{text}}}}}"))
            .map(|rule| rule.policy.unwrap().all.balancer.unwrap())
    };
    let hash = |text: &str| balancer(&format!("consistentHash: {{{text}}}")).unwrap().hash.unwrap();
    let ring = HashRing::Ring { minimum: 1024 };
    assert_eq!(hash("httpHeaderName: X-User"), (HashKey::Header("x-user".into()), ring));
    assert_eq!(
        hash("useSourceIp: true, minimumRingSize: 5"),
        (HashKey::SourceIp, HashRing::Ring { minimum: 5 })
    );
    assert_eq!(hash("httpQueryParameterName: q, maglev: {}").1, HashRing::Maglev { size: 65_537 });
    assert_eq!(hash("useSourceIp: true, maglev: {tableSize: 0}").1, HashRing::Maglev { size: 65_537 });
    for zero in ["minimumRingSize: 0", "ringHash: {minimumRingSize: 0}", "minimumRingSize: 0, ringHash: {}"] {
        assert_eq!(hash(&format!("useSourceIp: true, {zero}")).1, ring, "{zero}");
    }
    let (HashKey::Cookie { ttl_s, .. }, _) = hash("httpCookie: {name: c, ttl: 0s}") else { panic!() };
    assert_eq!(ttl_s, Some(0));
    assert_eq!(balancer("simple: LEAST_CONN").unwrap().simple, SimpleBalancer::LeastRequest);
    assert_eq!(balancer("simple: 4").unwrap().simple, SimpleBalancer::RoundRobin);
    let warmup = balancer("simple: ROUND_ROBIN, warmupDurationSecs: 10s").unwrap().warmup.unwrap();
    assert_eq!((warmup.duration_ms, warmup.minimum_percent), (10_000, 10.0));
    let locality =
        balancer("localityLbSetting: {distribute: [{from: r1/*, to: {r1/*: 80, r2/*: 20}}]}").unwrap();
    assert!(locality.locality.unwrap().enabled);
    for (text, reason) in [
        ("simple: FASTEST", "loadBalancer.simple: \"FASTEST\" is none of"),
        ("simple: RANDOM, consistentHash: {useSourceIp: true}", "exclude each other"),
        ("consistentHash: {}", "exactly one of httpHeaderName"),
        ("consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}", "10 is not a prime"),
        (
            "consistentHash: {useSourceIp: true, minimumRingSize: 5, ringHash: {}}",
            "consistentHash.minimumRingSize: it excludes ringHash and maglev",
        ),
        ("consistentHash: {useSourceIp: true, minimumRingSize: 5, maglev: {}}", "it excludes ringHash"),
        ("localityLbSetting: {distribute: [{from: a, to: {b: 99}}]}", "the sum of the weights is 99"),
        ("localityLbSetting: {failover: [{from: a, to: a}]}", "two different regions"),
    ] {
        let error = balancer(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn pools_and_outliers_are_read() {
    let parts = |text: &str| rule(&format!("trafficPolicy: {{{text}}}")).map(|rule| rule.policy.unwrap().all);
    let pool = parts(
        "connectionPool: {tcp: {maxConnections: 0, connectTimeout: 30ms, idleTimeout: 0s, tcpKeepalive: {time: 7200s}}, \
         http: {http2MaxRequests: 1000, h2UpgradePolicy: UPGRADE, idleTimeout: 1m}}",
    );
    let pool = pool.unwrap().pool.unwrap();
    assert_eq!(
        (pool.max_connections, pool.connect_timeout_ms, pool.idle_timeout_ms),
        (None, Some(30), Some(0))
    );
    assert_eq!((pool.keepalive, pool.max_requests), (Some((9, 7200, 75)), Some(1000)));
    assert!(pool.upgrade_to_h2 && pool.http_idle_timeout_ms == Some(60_000));
    let outliers = parts("outlierDetection: {}").unwrap().outliers.unwrap();
    assert_eq!(
        (outliers.consecutive_5xx, outliers.consecutive_gateway, outliers.consecutive_local),
        (5, 0, None)
    );
    assert_eq!((outliers.interval_ms, outliers.base_ejection_ms), (10_000, 30_000));
    assert_eq!((outliers.max_ejection_percent, outliers.min_health_percent), (10, 0));
    let outliers = parts(
        "outlierDetection: {consecutive5xxErrors: 1, interval: 1s, maxEjectionPercent: 100, splitExternalLocalOriginErrors: true}",
    );
    let outliers = outliers.unwrap().outliers.unwrap();
    assert_eq!(
        (outliers.consecutive_5xx, outliers.consecutive_local, outliers.max_ejection_percent),
        (1, Some(5), 100)
    );
    let errors = |text: &str| {
        let outliers = parts(&format!("outlierDetection: {{{text}}}"))?.outliers.unwrap();
        let numbers = (outliers.consecutive_5xx, outliers.consecutive_gateway, outliers.consecutive_local);
        Ok::<_, String>((numbers, outliers.max_ejection_percent, outliers.min_health_percent))
    };
    for (text, expected) in [
        ("consecutiveErrors: 3", ((5, 3, None), 10, 0)),
        ("consecutiveErrors: 0", ((5, 0, None), 10, 0)),
        ("consecutiveErrors: 3, consecutiveGatewayErrors: 2", ((5, 2, None), 10, 0)),
        ("consecutiveGatewayErrors: 4, minHealthPercent: 30", ((5, 4, None), 10, 30)),
        // Of errors 0 is never, of the rest it is none.
        ("consecutive5xxErrors: 0, consecutiveGatewayErrors: 0", ((0, 0, None), 10, 0)),
        ("maxEjectionPercent: 0, consecutiveLocalOriginFailures: 0", ((5, 0, None), 10, 0)),
        ("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 0", ((5, 0, Some(5)), 10, 0)),
        ("splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 7", ((5, 0, Some(7)), 10, 0)),
    ] {
        assert_eq!(errors(text), Ok(expected), "{text}");
    }
    let error = errors("consecutiveLocalOriginFailures: 2").unwrap_err();
    assert!(error.contains("it needs splitExternalLocalOriginErrors: true"), "{error}");
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    for (spec, reason) in [
        ("trafficPolicy: {}", "spec.trafficPolicy: it says nothing"),
        ("subsets: [{name: a}, {name: a}]", "spec.subsets: a is there twice"),
        ("subsets: [{name: a_b/c}]", "spec.subsets[0].name"),
        ("trafficPolicy: {tls: {mode: MUTUAL}}", "needs clientCertificate and privateKey"),
        ("trafficPolicy: {tls: {mode: MUTUAL, credentialName: x}}", "secrets are not read for clients"),
        ("trafficPolicy: {tls: {mode: ISTIO_MUTUAL, caCertificates: /x}}", "the mesh's own certificates"),
        (
            "trafficPolicy: {portLevelSettings: [{}]}",
            "spec.trafficPolicy.portLevelSettings[0].port: it is missing",
        ),
        (
            "trafficPolicy: {portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}",
            "port 1 is there twice",
        ),
        ("exportTo: ['~', a]", "spec.exportTo"),
    ] {
        let error = rule(spec).unwrap_err();
        assert!(error.contains(reason), "{spec}: {error}");
    }
    let noted = rule(
        "trafficPolicy: {tunnel: {targetHost: a, targetPort: 1}, tls: {mode: SIMPLE, credentialName: x}}, size: 1",
    );
    let paths: Vec<_> = noted.unwrap().notes.into_iter().map(|note| note.path).collect();
    assert_eq!(paths, ["spec.size", "spec.trafficPolicy.tls.credentialName", "spec.trafficPolicy.tunnel"]);
    let noted = rule(
        "trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [zone]}}}",
    );
    let notes = noted.unwrap().notes;
    assert_eq!(notes[0].path, "spec.trafficPolicy.loadBalancer.localityLbSetting.failover");
    assert!(notes[0].about.to_string().contains("failoverPriority says"), "{notes:?}");
}
