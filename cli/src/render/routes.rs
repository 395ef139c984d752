//! `warren routes`: what is in force, service by service.

use super::{Style, clean, plural};
use std::fmt::Write as _;
use warren_common::model::AppProtocol;
use warren_common::model::admin::{BackendView, PolicyInForce, Routes, RoutesOf, RuleView, RulesKind};

/// Clients that are named; of more, how many.
const NAMED: usize = 3;

/// All of it. `wide`: every client by name, and every extra on a line of its own.
pub(crate) fn routes(routes: &Routes, wide: bool, style: Style) -> String {
    if routes.routes.is_empty() {
        return "no rules and no DestinationRules are in force for these pods; requests go where connections do\n"
            .to_owned();
    }
    let all: Vec<_> = routes.routes.iter().map(|of| one(of, wide, style)).collect();
    all.join("\n")
}

fn one(of: &RoutesOf, wide: bool, style: Style) -> String {
    let protocol = match (of.kind, of.protocol) {
        (RulesKind::Tls, _) => " TLS",
        (RulesKind::Tcp, _) => " TCP",
        (_, AppProtocol::Unknown) => "",
        (_, AppProtocol::Http11) => " HTTP/1.1",
        (_, AppProtocol::Http2) => " HTTP/2",
        (_, AppProtocol::Grpc) => " gRPC",
    };
    let head = format!("{}:{}", clean(&of.service.hostname), of.port);
    let mut text = format!("{}{protocol}, for {}\n", style.bold(&head), clients(of, wide));
    if let Some(why) = &of.broken {
        let _ = writeln!(
            text,
            "  {} {}",
            style.cross(),
            style.red(&clean(&format!("not applied, nothing is sent: {why}")))
        );
    }
    if !of.objects.is_empty() {
        let objects: Vec<_> = of.objects.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  {}", clean(&objects.join(", ")));
    }
    text += &rules(&of.rules, wide, style);
    if of.left_out > 0 {
        let more = format!("    ... {} more; --limit shows them", plural(of.left_out as u64, "rule"));
        let _ = writeln!(text, "{}", style.dim(&more));
    }
    text += &of.policy.as_ref().map_or_else(String::new, |held| policy(held, style));
    for remark in &of.remarks {
        let _ = writeln!(text, "  {} {}", style.warning(), clean(remark));
    }
    text
}

fn clients(of: &RoutesOf, wide: bool) -> String {
    let names = || clean(&of.clients.join(", "));
    match of.clients.len() {
        1 => names(),
        count if !wide && of.every_client => format!("all {count} pods"),
        count if !wide && count > NAMED => format!("{count} pods"),
        _ => names(),
    }
}

fn rules(rules: &[RuleView], wide: bool, style: Style) -> String {
    let name = |rule: &RuleView| if rule.name.is_empty() { "-".to_owned() } else { clean(&rule.name) };
    let width = rules.iter().map(|rule| name(rule).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for rule in rules {
        let when = match &*rule.when {
            [] => "everything".to_owned(),
            when => clean(&when.join(" or ")),
        };
        let then = rule.then.clone().unwrap_or_else(|| sent(&rule.backends));
        let _ = writeln!(text, "    {:<width$}  {when} {} {}", name(rule), style.arrow(), clean(&then));
        let extras = if wide { rule.extras.clone() } else { Vec::from_iter(joined(&rule.extras)) };
        for extra in extras {
            let _ = writeln!(text, "    {:width$}    {}", "", style.dim(&clean(&extra)));
        }
    }
    text
}

fn joined(extras: &[String]) -> Option<String> {
    (!extras.is_empty()).then(|| extras.join("; "))
}

fn sent(backends: &[BackendView]) -> String {
    let one = |backend: &BackendView| match (backends.len(), &backend.broken) {
        (1, None) => backend.to.clone(),
        (_, None) => format!("{} {}", percent(backend.percent), backend.to),
        (_, Some(_)) => format!("{} {} (nowhere)", percent(backend.percent), backend.to),
    };
    match backends {
        [] => "nowhere".to_owned(),
        all => all.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn percent(percent: f64) -> String {
    let text = format!("{percent:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn policy(held: &PolicyInForce, style: Style) -> String {
    let objects: Vec<_> = held.objects.iter().map(ToString::to_string).collect();
    let says = match &*held.says {
        [] => String::new(),
        says => format!(": {}", says.join("; ")),
    };
    let mut text = format!("  {}\n", clean(&format!("{}{says}", objects.join(", "))));
    let width = |of: &dyn Fn(&warren_common::model::admin::SubsetView) -> usize| {
        held.subsets.iter().map(of).max().unwrap_or(0)
    };
    let (names, labels) = (width(&|it| it.name.chars().count()), width(&|it| it.labels.chars().count()));
    for subset in &held.subsets {
        let count = plural(subset.endpoints as u64, "endpoint");
        let count = if subset.endpoints == 0 { style.yellow(&count) } else { count };
        let says = subset.says.join("; ");
        let says = if says.is_empty() { says } else { format!(", {}", clean(&says)) };
        let (name, with) = (clean(&subset.name), clean(&subset.labels));
        let _ = writeln!(text, "    {name:<names$}  {with:<labels$}  {count}{says}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Routes {
        serde_json::from_value(serde_json::json!({"routes": [{
            "service": {"namespace": "shop", "hostname": "web.shop.svc.cluster.local"}, "port": 80, "protocol": "http11",
            "clients": ["shop/a", "shop/b"], "every_client": true, "kind": "http",
            "objects": [{"kind": "VirtualService", "namespace": "shop", "name": "web"}],
            "rules": [
                {"name": "jason", "when": ["header user \"jason\""], "backends": [{"to": "web:80 subset v2", "percent": 100.0}],
                 "extras": ["rewrite prefix /", "timeout 2s"]},
                {"name": "", "when": [], "backends": [
                    {"to": "web:80", "percent": 75.0}, {"to": "gone", "percent": 25.0, "broken": "no such service"}]},
                {"name": "old", "when": ["path /a", "path /b"], "then": "redirect 301 to path /new"},
            ],
            "left_out": 3,
            "policy": {"objects": [{"kind": "DestinationRule", "namespace": "shop", "name": "web"}], "says": ["RANDOM"],
                "subsets": [{"name": "v2", "labels": "version=v2", "endpoints": 1, "says": []},
                            {"name": "canary", "labels": "version=v3", "endpoints": 0, "says": ["ROUND_ROBIN"]}]},
            "remarks": ["gone leads nowhere: no such service"],
        }]}))
        .unwrap()
    }

    #[test]
    fn tables_read_from_top_to_bottom() {
        assert_eq!(
            routes(&sample(), false, Style::plain(true)),
            "web.shop.svc.cluster.local:80 HTTP/1.1, for all 2 pods
  VirtualService shop/web
    jason  header user \"jason\" → web:80 subset v2
             rewrite prefix /; timeout 2s
    -      everything → 75% web:80, 25% gone (nowhere)
    old    path /a or path /b → redirect 301 to path /new
    ... 3 rules more; --limit shows them
  DestinationRule shop/web: RANDOM
    v2      version=v2  1 endpoint
    canary  version=v3  0 endpoints, ROUND_ROBIN
  ! gone leads nowhere: no such service
"
        );
        let wide = routes(&sample(), true, Style::plain(true));
        assert!(wide.starts_with("web.shop.svc.cluster.local:80 HTTP/1.1, for shop/a, shop/b\n"), "{wide}");
        assert!(wide.contains("\n             timeout 2s\n"), "{wide}");
    }

    #[test]
    fn nothing_and_what_is_broken_are_said() {
        assert!(routes(&Routes::default(), false, Style::plain(true)).contains("no rules"));
        let mut broken = sample();
        broken.routes[0].broken = Some("rule 1: bad expression".into());
        assert!(
            routes(&broken, false, Style::plain(true))
                .contains("✗ not applied, nothing is sent: rule 1: bad")
        );
    }
}
