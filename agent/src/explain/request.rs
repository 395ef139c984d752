//! The steps of a request, in the order of [the pipeline's story](crate::http).

use super::Scene;
use super::ask::Ask;
use super::backend::{Way, arrive, like};
use super::tale::{Tale, row};
use super::words;
use crate::balance::in_force;
use crate::http::Asked;
use crate::route::http::{
    Action, BackendRule, ClientView, CorsDecision, Forwarding, HttpTable, Matched, Refusal, Rule, Step,
    timeout_of,
};
use http::HeaderMap;
use http::request::Parts;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use warren_common::model::Workload;
use warren_common::model::admin::{WhyMark, WhyRow};
use warren_common::model::traffic::{Destination, HeaderChanges, HttpAction, HttpRule, RouteTable};

/// A request on its way through a table.
pub(super) struct Request<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) client: &'a Arc<Workload>,
    pub(super) ask: &'a Ask,
    /// The address that it was sent to.
    pub(super) dialled: Option<SocketAddr>,
    /// The rules, and what they were compiled of.
    pub(super) table: &'a HttpTable,
    pub(super) written: Option<&'a RouteTable>,
}

impl Request<'_> {
    pub(super) fn tell(&self, tale: &mut Tale) {
        let mut parts = self.ask.parts.clone();
        let asked = match Asked::read(&mut parts, SystemTime::now()) {
            Ok(asked) => asked,
            Err(error) => return tale.answered(400, Some("DPE"), &error.to_string()),
        };
        let trace = self.table.explain(&asked.view());
        let tried = trace.steps.len();
        let rows: Vec<_> = trace.steps.iter().map(tried_row).collect();
        let Some(matched) = trace.matched else {
            tale.rows("rules", format!("none of {tried} holds this request"), rows);
            return tale.refused(Refusal::no_rule(), self.ask.is_grpc, "no rule is for this request");
        };
        let name = if matched.name.is_empty() { "without a name" } else { matched.name };
        let total = self.table.entries().len();
        tale.rows("rules", format!("{name} holds, number {tried} of {total}"), rows);
        tale.outcome.route = Some(matched.name.to_string()).filter(|name| !name.is_empty());
        self.apply(&asked, &matched, parts, tale);
    }

    fn apply(&self, asked: &Asked, matched: &Matched<'_>, parts: Parts, tale: &mut Tale) {
        let rule: &Rule = matched.rule;
        let written = self.written.and_then(|table| table.rules.http.as_ref()?.get(matched.index));
        if let Some(cors) = &rule.cors {
            let view = asked.view();
            match cors.decide(view.method, view.headers) {
                CorsDecision::Preflight(headers) => {
                    tale.step("CORS", format!("a preflight, answered here: {}", told(&headers)));
                    return tale.answered(200, None, "a preflight");
                }
                CorsDecision::Allowed(headers) => {
                    tale.step("CORS", format!("the response gets {}", told(&headers)));
                }
                CorsDecision::Unrelated => tale.step("CORS", "no origin that is let in: nothing changes"),
            }
        }
        let of_backend = match &rule.action {
            Action::Reply(reply) => {
                tale.answered(reply.status, None, "the rule's own answer");
                None
            }
            Action::Redirect(to) => {
                let location = to.location(&asked.view(), matched.part, self.ask.port);
                tale.answered(to.status, None, &format!("redirect to {location}"));
                tale.outcome.location = Some(location);
                None
            }
            Action::Forward(forwarding) => self.forward(asked, matched, forwarding, written, parts, tale),
        };
        for headers in written.map(|rule| &rule.response_headers).into_iter().chain(of_backend) {
            if let Some(text) = words::headers(headers) {
                tale.step("response", text);
            }
        }
    }

    /// What the backend that it gets to changes of the response is returned.
    fn forward<'w>(
        &self,
        asked: &Asked,
        matched: &Matched<'_>,
        forwarding: &Forwarding,
        written: Option<&'w HttpRule>,
        mut parts: Parts,
        tale: &mut Tale,
    ) -> Option<&'w HeaderChanges> {
        if let Some(fault) = &forwarding.fault {
            tale.step("fault", words::fault(fault).unwrap_or_else(|| "none".to_owned()));
            let abort = fault.abort.filter(|abort| abort.per_million > 0);
            tale.outcome.certain &= abort.is_none_or(|abort| abort.per_million >= 1_000_000);
            if let Some(abort) = abort.filter(|abort| abort.per_million >= 1_000_000) {
                let status = if abort.grpc_status.is_some() { 200 } else { abort.http_status };
                tale.answered(status, Some("FI"), "a fault that the rule makes");
                return None;
            }
        }
        let grpc_timeout = self.ask.parts.headers.get("grpc-timeout").filter(|_| self.ask.is_grpc);
        let timeout = timeout_of(forwarding.timeout, grpc_timeout.map(http::HeaderValue::as_bytes));
        let forward = written.and_then(|rule| match &rule.action {
            HttpAction::Forward(forward) => Some(forward),
            HttpAction::Redirect(_) | HttpAction::Reply(_) => None,
        });
        let patience = match (forward, timeout) {
            (Some(forward), timeout) if timeout == forwarding.timeout => words::patience(forward),
            (Some(forward), Some(timeout)) => {
                format!("{} as grpc-timeout says, {}", words::lasting(timeout), words::patience(forward))
            }
            _ => words::patience(&warren_common::model::traffic::Forward::default()),
        };
        tale.step("patience", patience);
        let Some((backend, index)) = self.split(forwarding, tale) else {
            let why = "nobody has a share of the rule's requests";
            tale.refused(Refusal::no_backend(self.table.api()), self.ask.is_grpc, why);
            return None;
        };
        if let Destination::Broken { wanted, why } = &backend.to {
            let why = format!("{wanted} leads nowhere: {why}");
            tale.refused(Refusal::no_backend(self.table.api()), self.ask.is_grpc, &why);
            return None;
        }
        if let Some(to) = &backend.redirect {
            let location = to.location(&asked.view(), matched.part, self.ask.port);
            tale.answered(to.status, None, &format!("redirect to {location}, as the backend's filter says"));
            tale.outcome.location = Some(location);
            return None;
        }
        let before = parts.clone();
        let remote = like(self.client, None);
        asked.change(matched.rule, backend, matched.part, remote, &mut parts);
        changed(&before, &parts, tale);
        for mirror in &backend.mirrors {
            tale.step("mirror", words::mirror(mirror));
        }
        self.reach(asked, &backend.to, tale);
        forward.and_then(|forward| forward.backends.get(index)).map(|backend| &backend.response_headers)
    }

    /// The backend that gets most; every one is told.
    fn split<'f>(&self, forwarding: &'f Forwarding, tale: &mut Tale) -> Option<(&'f BackendRule, usize)> {
        let share = |index| forwarding.split.share(index);
        let indexes = 0..forwarding.backends.len();
        let best = indexes
            .filter(|index| share(*index) > 0.0)
            .reduce(|best, index| if share(index) > share(best) { index } else { best })?;
        let views = words::backends(forwarding.backends.iter().map(|it| &it.to), &forwarding.split);
        let rows = views.iter().enumerate().map(|(index, view)| {
            let mark = match view.percent {
                _ if index == best => WhyMark::Chosen,
                percent if percent > 0.0 => WhyMark::Possible,
                _ => WhyMark::Excluded,
            };
            let broken = view.broken.as_ref().map_or(String::new(), |why| format!("leads nowhere: {why}"));
            row(mark, [words::percent(view.percent), view.to.clone(), broken])
        });
        let rows: Vec<WhyRow> = rows.collect();
        tale.outcome.certain &= share(best) >= 1.0;
        let text = match rows.len() {
            1 => "the only one".to_owned(),
            several => format!("one of {several}, by weight; the largest share is followed here"),
        };
        tale.rows("backend", text, rows);
        Some((forwarding.backends.get(best)?, best))
    }

    /// The endpoint of a backend.
    fn reach(&self, asked: &Asked, to: &Destination, tale: &mut Tale) {
        let Destination::Service { service: name, port, subset } = to else { return };
        let api = self.table.api();
        let grpc = self.ask.is_grpc;
        let cluster = format!("outbound|{port}|{}|{}", subset.as_deref().unwrap_or(""), name.hostname);
        tale.outcome.cluster = Some(cluster);
        let Some(service) = self.scene.mesh.service(name) else {
            let why = format!("there is no service {name}");
            return tale.refused(Refusal::no_backend(api), grpc, &why);
        };
        let view = ClientView { namespace: &self.client.namespace, labels: &self.client.labels };
        let traffic = self.scene.mesh.traffic(name).map(|traffic| &**traffic);
        let effective = match in_force(traffic, name, &view, *port, subset.as_deref()) {
            Ok(effective) => effective,
            Err(error) => return tale.refused(Refusal::no_backend(api), grpc, &error.to_string()),
        };
        if !effective.objects.is_empty() {
            let subset = subset.as_ref().map(|subset| match effective.labels.is_empty() {
                true => format!("subset {subset}: all endpoints"),
                false => format!("subset {subset}: {}", words::labels(&effective.labels)),
            });
            let says = words::join(subset.into_iter().chain(words::effective(&effective)));
            let says = if says.is_empty() { String::new() } else { format!(": {says}") };
            tale.step("settings", format!("{}{says}", words::objects(&effective.objects)));
        }
        let way = Way {
            scene: self.scene,
            client: self.client,
            service,
            port: *port,
            subset: subset.as_ref(),
            effective: &effective,
            like: like(self.client, self.dialled),
        };
        if way.is_left_open(tale) {
            return;
        }
        let view = asked.view();
        match way.choose(Some(&view), tale) {
            Ok(target) => arrive(self.scene, self.client, self.ask, &target, &effective.policy, tale),
            Err(why) => tale.refused(Refusal::no_endpoint(), grpc, &why),
        }
    }
}

fn tried_row(step: &Step<'_>) -> WhyRow {
    let name = if step.name.is_empty() { "-".to_owned() } else { step.name.to_string() };
    match &step.unmet {
        None => row(WhyMark::Chosen, [name, step.wants.clone(), String::new()]),
        Some(why) => row(WhyMark::Excluded, [name, step.wants.clone(), why.clone()]),
    }
}

fn told(headers: &HeaderMap) -> String {
    if headers.is_empty() {
        return "no headers".to_owned();
    }
    words::join(
        headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))),
    )
}

/// What the endpoint gets that the client did not send.
fn changed(before: &Parts, after: &Parts, tale: &mut Tale) {
    if before.uri.path_and_query() != after.uri.path_and_query() {
        let path = after.uri.path_and_query().map_or("", |path| path.as_str());
        tale.step("rewrite", format!("the endpoint is asked for {path}"));
    }
    let mut all = Vec::new();
    for name in after.headers.keys().filter(|name| differs(before, after, name)) {
        let values = after.headers.get_all(name).iter();
        let values = words::join(values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()));
        all.push(format!("{name}: {values}"));
    }
    let gone = before.headers.keys().filter(|name| !after.headers.contains_key(*name));
    all.extend(gone.map(|name| format!("no {name}")));
    if !all.is_empty() {
        tale.step("headers", format!("the endpoint sees {}", words::join(all)));
    }
}

fn differs(before: &Parts, after: &Parts, name: &http::HeaderName) -> bool {
    !before.headers.get_all(name).iter().eq(after.headers.get_all(name).iter())
}
