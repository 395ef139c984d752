//! A request as a line below its flow: what was asked, what was answered, by which rule, after how many tries.

use super::{Style, clean};
use warren_common::model::admin::FlowRequest;

/// `GET http://web.shop/cart HTTP/1.1: 200, by rule cart of VirtualService shop/web`.
pub(super) fn request(request: &FlowRequest, wide: bool, style: Style) -> String {
    let FlowRequest { protocol, method, path, authority, .. } = request;
    let asked = match (method.is_empty(), &**method) {
        (true, _) => "unreadable request".to_owned(),
        (false, "CONNECT") => format!("CONNECT {authority} {protocol}"),
        (false, method) => format!("{method} http://{authority}{path} {protocol}"),
    };
    let status = match (request.status, request.grpc_status) {
        (0, _) => "no response".to_owned(),
        (status, None) => status.to_string(),
        (status, Some(grpc)) => format!("{status}, grpc-status {grpc}"),
    };
    let bad = request.status >= 500 || request.grpc_status.is_some_and(|status| status != 0);
    let status = if bad { style.red(&status) } else { status };
    let mut text = format!("    {}: {status}", clean(&asked));
    match (&request.route, &request.objects) {
        (Some(route), Some(objects)) => text += &format!(", by rule {} of {}", clean(route), clean(objects)),
        (None, Some(objects)) => text += &format!(", by {}", clean(objects)),
        (Some(_), None) | (None, None) => {}
    }
    if request.attempts > 1 {
        text += &format!(", {} tries", request.attempts);
    }
    if !matches!(&*request.details, "" | "via_upstream") {
        text += &format!(", {}", clean(&request.details));
    }
    text.push('\n');
    if wide {
        let or_none = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or("-").to_owned();
        let about = format!("    request {} to {}", or_none(&request.request_id), or_none(&request.cluster));
        text += &style.dim(&clean(&about));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_a_sentence() {
        let mut about = FlowRequest {
            protocol: "HTTP/1.1".into(),
            method: "GET".into(),
            path: "/cart?x".into(),
            authority: "web.shop".into(),
            route: Some("cart".into()),
            objects: Some("VirtualService shop/web".into()),
            attempts: 1,
            status: 200,
            details: "via_upstream".into(),
            ..FlowRequest::default()
        };
        let plain = |about: &FlowRequest| request(about, false, Style::plain(true));
        let wanted =
            "    GET http://web.shop/cart?x HTTP/1.1: 200, by rule cart of VirtualService shop/web\n";
        assert_eq!(plain(&about), wanted);
        (about.status, about.attempts, about.details) = (503, 3, "no_healthy_upstream".into());
        assert!(
            plain(&about)
                .ends_with(": 503, by rule cart of VirtualService shop/web, 3 tries, no_healthy_upstream\n")
        );
        assert!(request(&about, true, Style::plain(true)).ends_with("    request - to -\n"));
    }
}
