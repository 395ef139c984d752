//! TLS that is spoken here to an endpoint, beside the mesh's own: where a DestinationRule asks for it, there is no way without.

use super::endpoints::Balanced;
use super::wire::{Counted, Wire, opened};
use super::{CREDENTIAL_DEADLINE, OutboundError};
use crate::context::Context;
use crate::flow::Upstream;
use crate::http::{Opened, Origination};
use crate::identity::{Application, connect_as_pod};
use crate::inbound;
use crate::observe::FlowHandle;
use crate::pods::Pod;
use crate::route::{Hop, Target};
use crate::standing::{Ended, Guest, Span};
use crate::tunnel::CopyError;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use warren_common::model::traffic::{PortPolicy, TlsMode};

/// Bytes that are read at once, each way.
const BUFFER: usize = 16 << 10;

/// What is to be spoken to this target; `name`: the server's, where the DestinationRule says none.
pub(crate) fn wanted(policy: &PortPolicy, hop: &Hop, name: &str) -> Option<Arc<Origination>> {
    let settings = policy.tls.as_ref()?;
    let is_outside = matches!(hop, Hop::Plaintext | Hop::Named(_));
    let is_spoken = match settings.mode {
        // Between pods of the mesh its own TLS stays.
        TlsMode::Disable => false,
        TlsMode::Simple | TlsMode::Mutual => true,
        TlsMode::IstioMutual => is_outside,
    };
    let name = || settings.sni.clone().unwrap_or_else(|| name.to_ascii_lowercase().into());
    is_spoken.then(|| Arc::new(Origination { settings: settings.clone(), name: name() }))
}

/// The host of an authority, without its port.
pub(super) fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// Speaks TLS over a way that is open.
pub(super) async fn originate(
    context: &Context,
    pod: &Pod,
    target: &Target,
    tls: &Origination,
    application: Application,
    Opened { io, evicted, phase, is_ending }: Opened,
    patience: Duration,
) -> Result<Opened, OutboundError> {
    let Origination { settings, name } = tls;
    let failed = |source| OutboundError::Outside {
        to: target.address,
        name: Arc::clone(name),
        source: Box::new(source),
    };
    let stream = match settings.mode {
        TlsMode::IstioMutual => {
            let identity = &pod.workload.identity;
            let credential = context.node.identities.credential(identity, CREDENTIAL_DEADLINE).await?;
            let own = target.workload.iter().map(|workload| Arc::from(workload.identity.to_string()));
            let expected: Vec<Arc<str>> = match settings.subject_alt_names.is_empty() {
                true => own.collect(),
                false => settings.subject_alt_names.clone(),
            };
            let trust_domain = &context.node.trust_domain;
            connect_as_pod(&credential, trust_domain, &expected, name, application, io, patience).await
        }
        _ => context.node.outside.connect(settings, name, application, io, patience).await,
    };
    Ok(Opened { io: Box::new(stream.map_err(failed)?), evicted, phase, is_ending })
}

/// The same for bytes.
pub(super) async fn originate_for_bytes(
    context: &Context,
    pod: &Pod,
    target: &Target,
    tls: &Origination,
    (upstream, guest): (Upstream, Option<Guest>),
    patience: Duration,
) -> Result<(Upstream, Option<Guest>), OutboundError> {
    let way = opened(upstream, guest, None);
    let way = originate(context, pod, target, tls, Application::Bytes, way, patience).await?;
    Ok((Upstream::Originated(Box::new(way)), None))
}

/// Copies until both directions have ended.
pub(super) async fn carry(
    context: &Context,
    pod: Arc<Pod>,
    socket: TcpStream,
    Opened { io, evicted, phase: _phase, .. }: Opened,
    (span, place): (Span, Option<Box<Balanced>>),
    flow: FlowHandle,
) {
    // Whatever is dropped before its end resets.
    let mut client = Wire::new(socket);
    let mut server = Counted::new(io, Arc::clone(flow.bytes()));
    let copied = {
        let copying = pin!(async {
            let copied = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
            copied.map(drop).map_err(CopyError::Upstream)
        });
        tokio::select! {
            copied = inbound::unless_idle(context, &pod, &flow, copying) => copied,
            ended = span.over(flow.bytes()) => Err(ended),
            () = evicted => Err(CopyError::Upstream(io::Error::other("it was let in no longer")).into()),
            () = pod.lifetime.cut() => Err(Ended::Gone(Arc::clone(&pod.workload.name))),
        }
    };
    drop(place);
    if let Err(error) = copied {
        flow.fail(error.flag(), error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_common::model::traffic::TlsOrigination;

    fn policy(mode: TlsMode, sni: Option<&str>) -> PortPolicy {
        let tls = TlsOrigination {
            mode,
            sni: sni.map(Arc::from),
            subject_alt_names: vec![],
            insecure_skip_verify: false,
            ca_file: None,
            certificate_file: None,
            key_file: None,
        };
        PortPolicy { tls: Some(tls), ..PortPolicy::default() }
    }

    #[test]
    fn what_is_spoken_to_whom() {
        let named = Hop::Named("api.example".into());
        for (mode, inside, outside) in [
            (TlsMode::Disable, false, false),
            (TlsMode::Simple, true, true),
            (TlsMode::Mutual, true, true),
            (TlsMode::IstioMutual, false, true),
        ] {
            let is_spoken = |hop: &Hop| wanted(&policy(mode, None), hop, "a").is_some();
            assert_eq!(is_spoken(&Hop::SameNode), inside, "{mode:?}");
            assert_eq!((is_spoken(&Hop::Plaintext), is_spoken(&named)), (outside, outside), "{mode:?}");
        }
        assert!(wanted(&PortPolicy::default(), &Hop::Plaintext, "a").is_none());
        let name =
            |sni| wanted(&policy(TlsMode::Simple, sni), &named, "Api.Example").unwrap().name.to_string();
        assert_eq!((&*name(None), &*name(Some("b"))), ("api.example", "b"));
    }

    #[test]
    fn hosts_of_authorities() {
        for (authority, expected) in
            [("a.example", "a.example"), ("a.example:80", "a.example"), ("[fd00::1]:80", "fd00::1"), ("", "")]
        {
            assert_eq!(host(authority), expected);
        }
    }
}
