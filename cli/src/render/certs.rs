//! `warren certs`.

use super::units::until;
use super::{Style, Table, clean, remaining};
use time::OffsetDateTime;
use warren_common::model::admin::{CaAlarm, CaRoot, CaRotation, CaStatus, Certificates, RootCertificate};

/// Certificates and roots of each node, with the time they have left at `now`. The node itself needs no name.
pub(crate) fn certificates(
    nodes: &[(Option<String>, Certificates)],
    now: OffsetDateTime,
    style: Style,
) -> String {
    let named = nodes.iter().any(|(node, _)| node.is_some());
    let new = if named { Table::by_node } else { Table::new };
    let mut certificates = new(&["IDENTITY", "STATE", "ENDS", "RENEWED", "SERIAL"]);
    let mut roots = new(&["TRUSTED ROOT", "ENDS", "SERIAL"]);
    let (mut any, mut rootless) = (false, String::new());
    for (node, found) in nodes {
        let node = node.as_deref().unwrap_or_default();
        for certificate in &found.certificates {
            any = true;
            certificates.row_of(
                node,
                [
                    certificate.identity.to_string(),
                    certificate.state.clone(),
                    remaining(certificate.not_after.as_deref(), now),
                    remaining(certificate.renew_at.as_deref(), now),
                    certificate.serial.clone().unwrap_or_default(),
                ],
            );
        }
        for root in &found.roots {
            let ends = remaining(Some(&root.not_after), now);
            roots.row_of(node, [root.subject.clone(), ends, root.serial.clone()]);
        }
        if found.roots.is_empty() {
            let place = if named { format!(" on {}", clean(node)) } else { String::new() };
            rootless += &format!("{} no roots{place}: no peer can be verified\n", style.cross());
        }
    }
    let mut text = if any {
        certificates.render(style)
    } else {
        let whose = if named { "any node" } else { "this node" };
        format!("no certificates: no pod of {whose} is enrolled\n")
    };
    text.push('\n');
    if nodes.iter().any(|(_, found)| !found.roots.is_empty()) {
        text += &roots.render(style);
    }
    text + &rootless
}

/// The CA, with the time it has left at `now`, how far a rotation is, and who is revoked.
pub(crate) fn ca(status: &CaStatus, now: OffsetDateTime, style: Style) -> String {
    let CaRotation { phase, kind, until, nodes, with_roots, renewed, behind, .. } = &status.rotation;
    let mut text = match (&status.plugged_in, phase.as_str()) {
        (Some(place), "steady") => format!("plugged in: {}\n", clean(place)),
        (None, "steady") => "no rotation is under way\n".to_owned(),
        _ => {
            let what = if kind == "root" { "the root" } else { "the signing certificate" };
            format!(
                "{what} is being replaced: {} (until {} at the latest)\n",
                clean(phase),
                remaining(until.as_deref(), now)
            )
        }
    };
    text += &format!(
        "{nodes} nodes: {with_roots} have these roots, {renewed} have certificates of the one that signs\n"
    );
    for node in behind.iter().filter(|_| phase != "steady") {
        text += &format!("  {}\n", clean(node));
    }
    let mut table = Table::new(&["CERTIFICATE", "ENDS", "STATE", "SERIAL"]);
    let signing = remaining(Some(&status.signing_not_after), now);
    table.row(["signing".to_owned(), signing, "signs".to_owned(), String::new()]);
    for CaRoot { certificate, state } in &status.roots {
        let ends = remaining(Some(&certificate.not_after), now);
        table.row([certificate.subject.clone(), ends, state.clone(), certificate.serial.clone()]);
    }
    text += &format!("\n{}\n", table.render(style));
    for CaAlarm { what, todo, urgent } in &status.alarms {
        let sign = if *urgent { style.cross() } else { style.warning() };
        text += &format!("{sign} {}\n  {}\n", clean(what), clean(todo));
    }
    if status.revoked.is_empty() {
        return text + "no identity is revoked\n";
    }
    let mut table = Table::new(&["REVOKED"]);
    for identity in &status.revoked {
        table.row([identity.to_string()]);
    }
    text += &table.render(style);
    text
}

/// What is wrong with certificates at `now`, if anything: a line each.
pub(crate) fn trouble(certificates: &Certificates, now: OffsetDateTime) -> Vec<String> {
    let mut found = Vec::new();
    for certificate in &certificates.certificates {
        let left = |at: &Option<String>| at.as_deref().and_then(|at| until(at, now));
        let identity = &certificate.identity;
        match (left(&certificate.not_after), left(&certificate.renew_at)) {
            (None, _) => found.push(format!("{identity}: {}", certificate.state)),
            (Some(end), _) if end.is_negative() => found.push(format!("{identity}: expired")),
            // A quarter of the lifetime late: renewal at half-life has failed for long.
            (Some(end), Some(renew)) if renew.is_negative() && end < -renew * 2 => {
                let ends = remaining(certificate.not_after.as_deref(), now);
                found.push(format!("{identity}: ends {ends} and was not renewed in time"));
            }
            _ => {}
        }
    }
    if certificates.roots.is_empty() && !certificates.certificates.is_empty() {
        found.push("there are no roots: no peer can be verified".to_owned());
    }
    for root in &certificates.roots {
        // While one is being replaced there is another that lives longer.
        let lasts = |root: &RootCertificate| {
            until(&root.not_after, now).is_some_and(|left| left >= time::Duration::days(30))
        };
        if !certificates.roots.iter().any(lasts) {
            found.push(format!("root {}: ends {}", root.subject, remaining(Some(&root.not_after), now)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-05-04 12:00 UTC);

    fn sample() -> Certificates {
        serde_json::from_str(
            r#"{"certificates":[
                {"identity":"spiffe://cluster.local/ns/shop/sa/web","state":"ready","serial":"0a1b",
                 "not_before":"2026-05-04T00:00:00Z","not_after":"2026-05-05T00:00:00Z",
                 "renew_at":"2026-05-04T12:30:00Z"},
                {"identity":"spiffe://cluster.local/ns/shop/sa/cart","state":"waiting for the controller",
                 "serial":null,"not_before":null,"not_after":null,"renew_at":null}],
                "roots":[{"subject":"O=warren","serial":"01","not_after":"2036-05-01T12:00:00Z"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn certificates_tell_the_time_they_have_left() {
        assert_eq!(
            certificates(&[(None, sample())], NOW, Style::plain(true)),
            "IDENTITY                                STATE                       ENDS       RENEWED    SERIAL
spiffe://cluster.local/ns/shop/sa/web   ready                       in 12h 0m  in 30m 0s  0a1b
spiffe://cluster.local/ns/shop/sa/cart  waiting for the controller  -          -          -

TRUSTED ROOT  ENDS         SERIAL
O=warren      in 3650d 0h  01
"
        );
    }

    #[test]
    fn several_nodes_are_told_apart() {
        let bare = Certificates { certificates: vec![], roots: vec![] };
        let nodes = [(Some("n1".to_owned()), sample()), (Some("n2".to_owned()), bare)];
        let text = certificates(&nodes, NOW, Style::plain(false));
        assert!(text.starts_with("NODE  IDENTITY") && text.contains("\nn1    spiffe://"), "{text}");
        assert!(text.contains("\nn1    O=warren") && text.contains("x no roots on n2:"), "{text}");
    }

    #[test]
    fn a_rotation_shows_how_far_it_is_and_what_ends_soon() {
        let mut status: CaStatus = serde_json::from_value(serde_json::json!({
            "root_not_after": "2036-05-01T12:00:00Z", "signing_not_after": "2026-05-06T12:00:00Z",
            "roots": [{"subject": "CN=new", "serial": "02", "not_after": "2036-05-01T12:00:00Z", "state": "trusted"},
                      {"subject": "CN=old", "serial": "01", "not_after": "2026-05-05T12:00:00Z", "state": "retired"}],
            "rotation": {"phase": "renewing", "kind": "root", "since": "2026-05-04T11:00:00Z",
                         "until": "2026-05-04T13:00:00Z", "signer": "00", "nodes": 3, "with_roots": 2, "renewed": 1,
                         "behind": ["n3: not connected"]},
            "alarms": [{"what": "the signing certificate ends in 2 days", "todo": "`warren ca rotate`", "urgent": false}],
            "revoked": []}))
        .unwrap();
        let text = ca(&status, NOW, Style::plain(true));
        for expected in [
            "the root is being replaced: renewing (until in 1h 0m at the latest)",
            "3 nodes: 2 have these roots, 1 have certificates of the one that signs",
            "  n3: not connected",
            "CN=old       in 1d 0h     retired  01",
            "the signing certificate ends in 2 days\n  `warren ca rotate`",
            "no identity is revoked",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        (status.rotation.phase, status.plugged_in) =
            ("steady".to_owned(), Some("the Secret cacerts".to_owned()));
        let text = ca(&status, NOW, Style::plain(true));
        assert!(text.starts_with("plugged in: the Secret cacerts\n") && !text.contains("n3"), "{text}");
    }

    #[test]
    fn trouble_is_what_will_not_repair_itself() {
        assert_eq!(trouble(&sample(), NOW).len(), 1);
        assert!(trouble(&sample(), NOW)[0].ends_with("sa/cart: waiting for the controller"));
        let late = trouble(&sample(), datetime!(2026-05-04 22:00 UTC));
        assert!(late[0].ends_with("sa/web: ends in 2h 0m and was not renewed in time"), "{late:?}");
        assert!(trouble(&sample(), datetime!(2026-05-06 0:00 UTC))[0].ends_with("sa/web: expired"));
        assert!(
            trouble(&sample(), datetime!(2036-04-20 0:00 UTC))
                .iter()
                .any(|line| line.starts_with("root O=warren"))
        );
    }
}
