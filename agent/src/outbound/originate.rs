//! TLS that is spoken here to an endpoint, beside the mesh's own: where a DestinationRule asks for it, there is no way without.

use super::endpoints::Balanced;
use super::wire::{Counted, Wire, opened};
use super::{CREDENTIAL_DEADLINE, OutboundError, revoked};
use crate::context::Context;
use crate::flow::Upstream;
use crate::http::{Opened, Origination};
use crate::identity::{Application, connect_as_pod};
use crate::inbound;
use crate::observe::{FlowFlag, FlowHandle};
use crate::pods::Pod;
use crate::policy::ServerName;
use crate::route::{Hop, Target};
use crate::standing::{Ended, Guest, Span};
use crate::store::Store;
use crate::tunnel::CopyError;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use warren_common::model::traffic::{PortPolicy, TlsMode, TlsOrigination};
use warren_common::model::{Identity, Service};

/// Bytes that are read at once, each way.
const BUFFER: usize = 16 << 10;
/// Many servers do that, and somebody in between can: the client gets what came, in order, and the record says so.
const CUT: &str = "the server closed without ending its TLS (no close_notify): what it sent may not be all";

/// What is to be spoken to this target of a service; `name`: the server's, where the DestinationRule says none.
pub(crate) fn wanted(
    policy: &PortPolicy,
    hop: &Hop,
    name: &str,
    service: Option<&Service>,
) -> Option<Arc<Origination>> {
    let settings = policy.tls.as_ref()?;
    let is_outside = matches!(hop, Hop::Plaintext | Hop::Named(_));
    let is_spoken = match settings.mode {
        // Between pods of the mesh its own TLS stays.
        TlsMode::Disable => false,
        TlsMode::Simple | TlsMode::Mutual => true,
        TlsMode::IstioMutual => is_outside,
    };
    if !is_spoken {
        return None;
    }
    let name = settings.sni.clone().unwrap_or_else(|| name.to_ascii_lowercase().into());
    let subject_alt_names = names(settings, service).to_vec();
    Some(Arc::new(Origination { settings: TlsOrigination { subject_alt_names, ..settings.clone() }, name }))
}

/// Names of which a server has to have one: the rule's own come first.
fn names<'a>(settings: &'a TlsOrigination, service: Option<&'a Service>) -> &'a [Arc<str>] {
    match (&*settings.subject_alt_names, service) {
        ([], Some(service)) => &service.origin.subject_alt_names,
        (own, _) => own,
    }
}

/// A pod of the mesh that a DestinationRule's `subjectAltNames` do not name.
#[derive(Debug, thiserror::Error)]
#[error("{to} is {identity}, which subjectAltNames do not name: {}", names.join(", "))]
pub(crate) struct Unnamed {
    to: SocketAddr,
    identity: Identity,
    names: Vec<Arc<str>>,
}

/// Whether the rule lets this pod of the mesh answer: it proves its identity by other means than the rule's TLS, which is not
/// spoken there, and in mode ISTIO_MUTUAL that has to be one of the names.
///
/// # Errors
/// [`Unnamed`].
pub(crate) fn named(
    policy: &PortPolicy,
    target: &Target,
    service: Option<&Service>,
) -> Result<(), Box<Unnamed>> {
    let settings = policy.tls.as_ref().filter(|tls| tls.mode == TlsMode::IstioMutual);
    let (Some(settings), Some(workload), Hop::SameNode | Hop::Hbone { .. }) =
        (settings, &target.workload, &target.hop)
    else {
        return Ok(());
    };
    let (names, identity) = (names(settings, service), &workload.identity);
    if names.is_empty() || names.iter().any(|name| **name == *identity.to_string()) {
        return Ok(());
    }
    Err(Box::new(Unnamed { to: target.address, identity: identity.clone(), names: names.to_vec() }))
}

/// The server name that will be asked for, as [`ServerName::Named`] has it: none without TLS, and none for an address.
pub(super) fn server_name(tls: Option<&Origination>) -> ServerName {
    let Some(Origination { name, .. }) = tls else { return ServerName::Named("".into()) };
    match rustls_pki_types::ServerName::try_from(&**name) {
        Ok(rustls_pki_types::ServerName::DnsName(name)) => {
            ServerName::Named(name.as_ref().trim_end_matches('.').to_ascii_lowercase().into())
        }
        Ok(rustls_pki_types::ServerName::IpAddress(_)) => ServerName::Named("".into()),
        // There will be no handshake.
        _ => ServerName::Unreadable,
    }
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
    Opened { io, mut evicted, phase, mut is_ending }: Opened,
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
            let store = &context.node.store;
            if let Some(revoked) = revoked(store, [identity, identity]) {
                return Err(OutboundError::Revoked(revoked));
            }
            let credential = context.node.identities.credential(identity, CREDENTIAL_DEADLINE).await?;
            let own = target.workload.iter().map(|workload| Arc::from(workload.identity.to_string()));
            let expected: Vec<Arc<str>> = match settings.subject_alt_names.is_empty() {
                true => own.collect(),
                false => settings.subject_alt_names.clone(),
            };
            let trust_domain = &context.node.trust_domain;
            let connecting =
                connect_as_pod(&credential, trust_domain, &expected, name, application, io, patience);
            match connecting.await {
                Err(error) => Err(error),
                Ok((stream, found)) => {
                    let proven = Proven { store: Arc::clone(store), ends: [identity.clone(), found] };
                    if let Some(revoked) = proven.revoked() {
                        return Err(OutboundError::Revoked(revoked));
                    }
                    (evicted, is_ending) = proven.watch(evicted, is_ending);
                    Ok(stream)
                }
            }
        }
        _ => context.node.outside.connect(settings, name, application, io, patience).await,
    };
    Ok(Opened { io: Box::new(stream.map_err(failed)?), evicted, phase, is_ending })
}

/// See [`Opened::evicted`].
type Evicted = Pin<Box<dyn Future<Output = ()>>>;
/// See [`Opened::is_ending`].
type IsEnding = Box<dyn Fn() -> bool>;

/// The two ends of a connection that have shown identities of the mesh to each other.
#[derive(Clone)]
struct Proven {
    store: Arc<Store>,
    ends: [Identity; 2],
}

impl Proven {
    fn revoked(&self) -> Option<Identity> {
        let [own, found] = &self.ends;
        revoked(&self.store, [own, found])
    }

    /// The connection also ends when one of them is revoked, and has no more requests.
    fn watch(self, evicted: Evicted, is_ending: IsEnding) -> (Evicted, IsEnding) {
        let watched = self.clone();
        let evicted = async move {
            tokio::select! {
                () = evicted => {}
                () = watched.until_revoked() => {}
            }
        };
        (Box::pin(evicted), Box::new(move || is_ending() || self.revoked().is_some()))
    }

    async fn until_revoked(&self) {
        let mut changed = self.store.changed();
        while self.revoked().is_none() {
            if changed.changed().await.is_err() {
                // The agent ends.
                return pending().await;
            }
        }
    }
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
            () = evicted => Err(CopyError::Upstream(io::Error::other("an end of it was let in no longer")).into()),
            () = pod.lifetime.cut() => Err(Ended::Gone(Arc::clone(&pod.workload.name))),
        }
    };
    drop(place);
    match copied {
        Err(error) => flow.fail(error.flag(), error),
        Ok(()) if server.is_cut() => flow.fail(FlowFlag::Other, CUT),
        Ok(()) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Outside, OutsideError};
    use crate::observe::ByteCounters;
    use crate::policy::ClientHello;
    use crate::route::{Extent, Failure};
    use crate::store::MeshChange;
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use warren_common::model::{ServiceName, ServiceOrigin, Steering};

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

    fn service(names: &[&str]) -> Service {
        let key = ServiceName { namespace: "shop".into(), hostname: "api.example".into() };
        let subject_alt_names = names.iter().map(|name| (*name).into()).collect();
        Service {
            name: "api".into(),
            key,
            addresses: vec![],
            ports: vec![],
            publish_not_ready: false,
            steering: Steering::default(),
            origin: ServiceOrigin { subject_alt_names, ..ServiceOrigin::default() },
        }
    }

    #[test]
    fn a_rules_names_come_before_its_entrys() {
        let entry = service(&["entry.example"]);
        let names = |policy: &PortPolicy, service: &Service| {
            let wanted = wanted(policy, &Hop::Plaintext, "a", Some(service)).unwrap();
            wanted.settings.subject_alt_names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut rule = policy(TlsMode::Simple, None);
        assert_eq!(names(&rule, &entry), ["entry.example"]);
        assert!(names(&rule, &service(&[])).is_empty());
        rule.tls.as_mut().unwrap().subject_alt_names = vec!["rule.example".into()];
        assert_eq!(names(&rule, &entry), ["rule.example"]);
    }

    #[test]
    fn a_pod_of_the_mesh_has_to_be_one_that_is_named() {
        let pod = crate::pods::testing::pod("web", "web", &[], true);
        let own = pod.identity.to_string();
        let tunnel = Hop::Hbone { gateway: ([10, 0, 0, 2], 15008).into(), identity: pod.identity.clone() };
        let named = |mode, names: &[&str], entrys: &[&str], hop: &Hop| {
            let mut policy = policy(mode, None);
            policy.tls.as_mut().unwrap().subject_alt_names =
                names.iter().map(|name| (*name).into()).collect();
            let target = Target {
                address: ([10, 0, 0, 2], 80).into(),
                workload: Some(Arc::clone(&pod)),
                service: None,
                endpoints: 1,
                hop: hop.clone(),
            };
            named(&policy, &target, Some(&service(entrys))).map_err(|error| error.to_string())
        };
        for hop in [&Hop::SameNode, &tunnel] {
            assert!(named(TlsMode::IstioMutual, &[], &[], hop).is_ok(), "whoever the mesh says");
            assert!(named(TlsMode::IstioMutual, &["other", &own], &["other"], hop).is_ok());
            assert!(named(TlsMode::IstioMutual, &[], &[&own], hop).is_ok(), "the entry's");
            let why = named(TlsMode::IstioMutual, &["other"], &[&own], hop).unwrap_err();
            assert!(why.contains(&own) && why.ends_with("do not name: other"), "{why}");
            // Their own TLS is spoken within the tunnel, and judged there.
            assert!(named(TlsMode::Simple, &["other"], &[], hop).is_ok());
        }
        assert!(named(TlsMode::IstioMutual, &["other"], &[], &Hop::Plaintext).is_ok(), "judged in TLS");
    }

    /// What rustls really sends, read as the pod's door would.
    #[test]
    fn the_door_is_told_the_name_that_is_asked_for() {
        assert_eq!(server_name(None), ServerName::Named("".into()), "requests without TLS");
        for (name, expected) in [
            ("secret.example", "secret.example"),
            ("Secret.Example.", "secret.example"),
            ("10.0.0.1", ""),
            ("fd00::1", ""),
        ] {
            let tls = Origination { settings: policy(TlsMode::Simple, None).tls.unwrap(), name: name.into() };
            assert_eq!(server_name(Some(&tls)), ServerName::Named(expected.into()), "{name}");
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let asked = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
            let mut sent = Vec::new();
            let mut client = rustls::ClientConnection::new(Arc::new(config), asked).unwrap();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            assert_eq!(ClientHello::default().read(&sent), Some(server_name(Some(&tls))), "{name}");
        }
        let none =
            Origination { settings: policy(TlsMode::Simple, None).tls.unwrap(), name: "no name".into() };
        assert_eq!(server_name(Some(&none)), ServerName::Unreadable);
    }

    #[tokio::test]
    async fn who_is_revoked_speaks_no_more() {
        let identity = |account| Identity::new("cluster.local", "shop", account).unwrap();
        for end in ["own", "found"] {
            let store = Arc::new(Store::new());
            let ends = [identity("own"), identity("found")];
            let proven = Proven { store: Arc::clone(&store), ends };
            let (evicted, is_ending) = proven.watch(Box::pin(pending()), Box::new(|| false));
            let mut evicted = pin!(evicted);
            let revoke = |account| {
                store.apply(vec![MeshChange::Revoked([identity(account)].into_iter().collect())]);
            };
            revoke("other");
            assert!(evicted.as_mut().now_or_never().is_none() && !is_ending());
            revoke(end);
            assert!(evicted.now_or_never().is_some() && is_ending(), "{end}");
        }
    }

    /// What a client reads of a real TLS server that says a word and ends, and whether that was an end without one.
    async fn said(orderly: bool) -> (String, bool) {
        let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let serving = async {
            let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(far).await.unwrap();
            stream.write_all(b"word").await.unwrap();
            stream.flush().await.unwrap();
            if orderly {
                stream.shutdown().await.unwrap();
            }
        };
        let asking = async {
            let outside = Outside::new("/nonexistent".into());
            let mut settings = policy(TlsMode::Simple, None).tls.unwrap();
            settings.insecure_skip_verify = true;
            let patience = Duration::from_secs(20);
            let name = "a.example".into();
            let stream = outside.connect(&settings, &name, Application::Bytes, near, patience).await.unwrap();
            let bytes = Arc::new(ByteCounters::default());
            let mut server = Counted::new(stream, Arc::clone(&bytes));
            let mut text = String::new();
            server.read_to_string(&mut text).await.unwrap();
            assert_eq!(bytes.totals(), (0, 4));
            (text, server.is_cut())
        };
        tokio::join!(asking, serving).0
    }

    #[tokio::test]
    async fn a_server_that_just_closes_has_ended() {
        assert_eq!(said(true).await, ("word".to_owned(), false));
        assert_eq!(said(false).await, ("word".to_owned(), true));
    }

    #[test]
    fn what_one_client_asks_for_says_nothing_to_others() {
        let patience = crate::route::Attempts::new(std::time::Instant::now()).patience(3);
        let hurry = patience.limited_to(Duration::from_millis(1));
        let to = "10.0.0.1:80".parse().unwrap();
        let late = || OutboundError::Connect { to, source: io::ErrorKind::TimedOut.into() };
        let silent = || OutboundError::Silent { gateway: to, reason: "late".to_owned() };
        for error in [late(), silent()] {
            assert_eq!(error.extent(80, patience), Some(Extent::Silent), "{error}");
            assert_eq!(error.extent(80, patience.limited_to(Duration::from_secs(60))), Some(Extent::Silent));
            assert_eq!(error.extent(80, hurry), None, "{error}");
        }
        let refused = OutboundError::Connect { to, source: io::ErrorKind::ConnectionRefused.into() };
        assert_eq!(refused.extent(80, hurry), Some(Extent::Port(80)), "whoever asks");
        for source in [OutsideError::Silent, OutsideError::NoHttp2] {
            let outside = OutboundError::Outside { to, name: "a".into(), source: Box::new(source) };
            assert_eq!((outside.extent(80, patience), outside.failure()), (None, Failure::Refused));
        }
    }

    #[test]
    fn what_is_spoken_to_whom() {
        let service = service(&[]);
        let named = Hop::Named("api.example".into());
        for (mode, inside, outside) in [
            (TlsMode::Disable, false, false),
            (TlsMode::Simple, true, true),
            (TlsMode::Mutual, true, true),
            (TlsMode::IstioMutual, false, true),
        ] {
            let is_spoken = |hop: &Hop| wanted(&policy(mode, None), hop, "a", Some(&service)).is_some();
            assert_eq!(is_spoken(&Hop::SameNode), inside, "{mode:?}");
            assert_eq!((is_spoken(&Hop::Plaintext), is_spoken(&named)), (outside, outside), "{mode:?}");
        }
        assert!(wanted(&PortPolicy::default(), &Hop::Plaintext, "a", None).is_none());
        let name = |sni| {
            let wanted = wanted(&policy(TlsMode::Simple, sni), &named, "Api.Example", Some(&service));
            wanted.unwrap().name.to_string()
        };
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
