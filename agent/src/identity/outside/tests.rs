//! Against a real TLS server, over a pipe.

use super::*;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, names: &[&str]) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::default();
    for name in names {
        let name = match name.contains("://") {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names.push(name);
    }
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

/// A server with this certificate; it asks clients for one of `clients`, if that is there.
fn server(
    (own, key): &(Certificate, KeyPair),
    clients: Option<&Ca>,
    alpn: &[&str],
) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(ca.der().to_vec())).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![own.der().clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    Arc::new(config)
}

struct Scene {
    folder: TempDir,
    ca: Ca,
    outside: Outside,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = ca();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let outside = Outside::new(folder.path().to_owned());
        Self { folder, ca, outside }
    }

    fn path(&self, name: &str) -> Arc<str> {
        self.folder.path().join(name).to_string_lossy().into()
    }

    fn simple(&self) -> TlsOrigination {
        TlsOrigination {
            mode: TlsMode::Simple,
            sni: None,
            subject_alt_names: vec![],
            insecure_skip_verify: false,
            ca_file: Some(self.path("ca.pem")),
            certificate_file: None,
            key_file: None,
        }
    }

    /// The words of a server that was connected to, or why it was not.
    async fn ask(
        &self,
        settings: &TlsOrigination,
        name: &str,
        application: Application,
        server: Arc<rustls::ServerConfig>,
    ) -> Result<String, String> {
        let (near, far) = duplex(1 << 16);
        let serving = tokio::spawn(async move {
            let mut stream = tokio_rustls::TlsAcceptor::from(server).accept(far).await?;
            let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            stream.write_all(name.as_bytes()).await?;
            stream.shutdown().await
        });
        let patience = Duration::from_secs(20);
        let connected = self.outside.connect(settings, &name.into(), application, near, patience).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.map_err(|error| error.to_string())?;
        serving.await.unwrap().map_err(|error| error.to_string())?;
        Ok(said)
    }
}

#[tokio::test]
async fn servers_are_who_their_roots_and_names_say() {
    let scene = Scene::new();
    let good = server(&leaf(&scene.ca, &["a.example", "spiffe://x/ns/a/sa/b"]), None, &[]);
    let stranger = server(&leaf(&ca(), &["a.example"]), None, &[]);
    let named = |names: &[&str]| TlsOrigination {
        subject_alt_names: names.iter().map(|name| (*name).into()).collect(),
        ..scene.simple()
    };
    let skipping = TlsOrigination { insecure_skip_verify: true, ..scene.simple() };
    for (settings, name, server, expected) in [
        (scene.simple(), "a.example", &good, Ok("a.example")),
        (scene.simple(), "b.example", &good, Err("not valid for name")),
        (scene.simple(), "a.example", &stranger, Err("invalid peer certificate")),
        (named(&["b.example", "a.example"]), "c.example", &good, Ok("c.example")),
        (named(&["b.example"]), "a.example", &good, Err("NotValidForName")),
        (named(&["spiffe://x/ns/a/sa/b"]), "c.example", &good, Ok("c.example")),
        (named(&["spiffe://x/ns/a/sa/c"]), "a.example", &good, Err("NotValidForName")),
        (named(&["a.example"]), "a.example", &stranger, Err("invalid peer certificate")),
        (skipping, "c.example", &stranger, Ok("c.example")),
        (scene.simple(), "not a name", &good, Err("is no name of a server")),
    ] {
        let asked = scene.ask(&settings, name, Application::Bytes, Arc::clone(server)).await;
        match (&asked, expected) {
            (Ok(said), Ok(expected)) => assert_eq!(said, expected),
            (Err(why), Err(part)) => {
                let same = |text: &str| text.to_lowercase().replace(' ', "");
                assert!(same(why).contains(&same(part)), "{settings:?} {name}: {why}");
            }
            _ => panic!("{settings:?} {name}: {asked:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_offered_is_what_is_spoken() {
    let scene = Scene::new();
    let own = leaf(&scene.ca, &["a.example"]);
    let ask = async |application, alpn: &[&str]| {
        scene.ask(&scene.simple(), "a.example", application, server(&own, None, alpn)).await
    };
    assert!(ask(Application::Http2, &["h2"]).await.is_ok());
    assert!(ask(Application::Http2, &["http/1.1"]).await.is_err());
    assert!(ask(Application::Http2, &[]).await.unwrap_err().contains("does not speak HTTP/2"));
    assert!(ask(Application::Http1, &["h2", "http/1.1"]).await.is_ok());
    assert!(ask(Application::Http1, &["h2"]).await.is_err());
    assert!(ask(Application::Bytes, &["h2"]).await.is_ok(), "nothing is offered");
}

fn mutual(scene: &Scene) -> TlsOrigination {
    TlsOrigination {
        mode: TlsMode::Mutual,
        certificate_file: Some(scene.path("own.pem")),
        key_file: Some(scene.path("own.key")),
        ..scene.simple()
    }
}

fn write_own(folder: &Path, (own, key): &(Certificate, KeyPair)) {
    std::fs::write(folder.join("own.pem"), own.pem()).unwrap();
    std::fs::write(folder.join("own.key"), key.serialize_pem()).unwrap();
}

/// Once files are looked at again.
async fn later() {
    tokio::time::advance(LOOK_AGAIN).await;
}

#[tokio::test(start_paused = true)]
async fn files_are_read_again_when_they_change_and_bad_ones_change_nothing() {
    let scene = Scene::new();
    let picky = server(&leaf(&scene.ca, &["a.example"]), Some(&scene.ca), &[]);
    let ask = async |settings: &TlsOrigination| {
        scene.ask(settings, "a.example", Application::Bytes, Arc::clone(&picky)).await
    };
    let settings = mutual(&scene);
    assert!(ask(&scene.simple()).await.is_err(), "the server wants a certificate");
    assert!(ask(&settings).await.unwrap_err().contains("cannot read"), "there are no files yet");
    write_own(scene.folder.path(), &leaf(&ca(), &["client"]));
    later().await;
    assert!(ask(&settings).await.is_err(), "a certificate of somebody else");
    write_own(scene.folder.path(), &leaf(&scene.ca, &["client", "with-another-length"]));
    later().await;
    assert_eq!(ask(&settings).await.as_deref(), Ok("a.example"));
    std::fs::write(scene.folder.path().join("own.key"), "nonsense").unwrap();
    later().await;
    assert_eq!(ask(&settings).await.as_deref(), Ok("a.example"), "the ones before stay");
    let fresh = TlsOrigination { sni: Some("x".into()), ..settings };
    assert!(ask(&fresh).await.unwrap_err().contains("holds no private key"), "where there were none before");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_not_looked_for_again() {
    let scene = Scene::new();
    let first = |result: Outcome| Arc::as_ptr(&result.unwrap_err());
    let outcome = async |settings: &TlsOrigination| scene.outside.config(settings, Application::Bytes).await;
    // Its own files come first: there are none, and roots that are none are not even read.
    let bad = TlsOrigination { ca_file: Some(scene.path("none.pem")), ..mutual(&scene) };
    let why = outcome(&bad).await.unwrap_err();
    assert!(why.to_string().contains("own.pem"), "{why}");
    later().await;
    assert_eq!(first(outcome(&bad).await), Arc::as_ptr(&why), "the same error, for no file has changed");
    tokio::time::advance(TRY_AGAIN).await;
    assert_ne!(first(outcome(&bad).await), Arc::as_ptr(&why), "it is tried again at last");

    let good = outcome(&scene.simple()).await.unwrap();
    std::fs::write(scene.folder.path().join("ca.pem"), ca().pem() + "\n").unwrap();
    assert!(Arc::ptr_eq(&outcome(&scene.simple()).await.unwrap(), &good), "not looked at within a second");
    later().await;
    assert!(!Arc::ptr_eq(&outcome(&scene.simple()).await.unwrap(), &good), "and then it is");
}

#[tokio::test]
async fn files_elsewhere_are_not_read() {
    let scene = Scene::new();
    let elsewhere = tempfile::tempdir().unwrap();
    write_own(elsewhere.path(), &leaf(&scene.ca, &["client"]));
    std::os::unix::fs::symlink(elsewhere.path().join("own.pem"), scene.folder.path().join("own.pem"))
        .unwrap();
    std::fs::copy(elsewhere.path().join("own.key"), scene.folder.path().join("own.key")).unwrap();
    let good = server(&leaf(&scene.ca, &["a.example"]), None, &[]);
    let asked = scene.ask(&mutual(&scene), "a.example", Application::Bytes, good).await;
    assert!(asked.as_ref().is_err_and(|why| why.contains("--tls-files")), "{asked:?}");
}
