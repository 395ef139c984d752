use super::fake::{Clock, FakeCa, Recipe, clock, id};
use crate::control::Trust;
use crate::identity::keys::{certificate_request, generate};
use crate::identity::{
    CertificateAuthority as _, Credential, CredentialError, Identities, IdentityConfig, Proof,
};
use rustls_pki_types::ServerName;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SOON: Duration = Duration::from_secs(5);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct World {
    folder: TempDir,
    clock: Clock,
    ca: Arc<FakeCa>,
}

impl World {
    fn new() -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
        let ca = FakeCa::new(clock.clone());
        ca.write_root(&folder.path().join("ca.pem"));
        Self { folder, clock, ca }
    }

    fn trust(&self) -> Trust {
        Trust::new(self.folder.path().join("ca.pem"), None)
    }

    fn start(&self) -> Identities {
        self.start_with(self.trust())
    }

    fn start_with(&self, trust: Trust) -> Identities {
        let config = IdentityConfig {
            trust,
            state_dir: Some(self.folder.path().join("state")),
            validity: seconds(3600),
        };
        Identities::with_clock(config, self.ca.clone(), self.clock.clone())
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("state/certs")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits on simulated time until there are so many files, each of them whole.
    async fn until_files(&self, count: usize) {
        let whole = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "pem");
        let there = async {
            while self.files().len() != count || !self.files().iter().all(whole) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(seconds(60), there).await.unwrap_or_else(|_| panic!("{:?}", self.files()));
    }
}

fn wanted(accounts: &[&str]) -> BTreeSet<warren_common::model::Identity> {
    accounts.iter().map(|account| id(account)).collect()
}

#[tokio::test(start_paused = true)]
async fn renewed_at_half_life() {
    let world = World::new();
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    let first = identities.credential(&id("cart"), SOON).await.unwrap();
    let due = first.renew_at.duration_since(first.not_before).unwrap();
    assert!((seconds(1619)..seconds(1982)).contains(&due), "{due:?}");
    tokio::time::sleep(seconds(1610)).await;
    assert_eq!(identities.credential(&id("cart"), SOON).await.unwrap().generation, first.generation);
    tokio::time::sleep(seconds(380)).await;
    let second = identities.credential(&id("cart"), SOON).await.unwrap();
    assert!(second.generation > first.generation && second.serial != first.serial);
    assert_eq!(world.ca.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn short_lives_and_notbefore_in_the_past_do_not_hammer_the_ca() {
    let world = World::new();
    world.ca.cook(Recipe { lifetime: seconds(65), age: seconds(60), ..Recipe::default() });
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    for _ in 0..60 {
        identities.credential(&id("cart"), SOON).await.unwrap();
        tokio::time::sleep(seconds(1)).await;
    }
    assert!((20..=30).contains(&world.ca.asked()), "asked {} times in 60 s for 5 s each", world.ca.asked());
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_are_named_until_the_ca_is_back() {
    let world = World::new();
    world.ca.cook(Recipe { fail: Some("out to lunch"), ..Recipe::default() });
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    let error = identities.credential(&id("cart"), seconds(60)).await.unwrap_err();
    assert!(
        matches!(&error, CredentialError::Pending { reason, .. } if reason.contains("out to lunch")),
        "{error}"
    );
    assert!((5..=40).contains(&world.ca.asked()), "asked {} times in 60 s", world.ca.asked());
    assert!(identities.certificates().certificates[0].state.contains("out to lunch"));
    world.ca.cook(Recipe::default());
    identities.credential(&id("cart"), seconds(16)).await.unwrap();
    let shown = identities.certificates();
    assert_eq!((shown.certificates[0].state.as_str(), shown.roots.len()), ("ready", 1));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_used_until_it_expires_and_no_longer() {
    let world = World::new();
    world.ca.cook(Recipe { lifetime: seconds(100), ..Recipe::default() });
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    let first = identities.credential(&id("cart"), SOON).await.unwrap();
    world.ca.cook(Recipe { fail: Some("out to lunch"), ..Recipe::default() });
    tokio::time::sleep(seconds(95)).await;
    assert_eq!(identities.credential(&id("cart"), SOON).await.unwrap().generation, first.generation);
    assert!(identities.certificates().certificates[0].state.starts_with("ready, renewal fails"));
    tokio::time::sleep(seconds(10)).await;
    let error = identities.credential(&id("cart"), SOON).await.unwrap_err();
    assert!(
        matches!(&error, CredentialError::Expired { reason, .. } if reason.contains("out to lunch")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_ca_got_wrong_is_not_used() {
    let world = World::new();
    let identities = world.start();
    for (recipe, said) in [
        (Recipe { foreign_root: true, ..Recipe::default() }, "roots"),
        (Recipe { foreign_key: true, ..Recipe::default() }, "TLS configuration"),
        (Recipe { age: seconds(7200), ..Recipe::default() }, "expired"),
    ] {
        world.ca.cook(recipe);
        identities.want(BTreeSet::new());
        identities.want(wanted(&["cart"]));
        let error = identities.credential(&id("cart"), SOON).await.unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_for_the_next_start_and_go_with_the_last_pod() {
    let world = World::new();
    let identities = world.start();
    identities.want(wanted(&["cart", "web"]));
    let cart = identities.credential(&id("cart"), SOON).await.unwrap();
    world.until_files(2).await;
    for path in world.files() {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let folder = world.folder.path().join("state/certs");
    assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    drop(identities);

    // The CA is away: what is on disk does.
    world.ca.cook(Recipe { fail: Some("away"), ..Recipe::default() });
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    assert_eq!(identities.credential(&id("cart"), SOON).await.unwrap().serial, cart.serial);
    world.until_files(1).await;
    identities.want(BTreeSet::new());
    world.until_files(0).await;
    let gone = identities.credential(&id("cart"), seconds(1)).await.unwrap_err();
    assert_eq!(gone, CredentialError::NotWanted(id("cart")));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_disk_is_not_trusted_blindly() {
    let world = World::new();
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    let first = identities.credential(&id("cart"), SOON).await.unwrap();
    world.until_files(1).await;
    drop(identities);
    let asked = world.ca.asked();
    for spoil in ["expired", "damaged", "of other roots"] {
        let path = world.files().remove(0);
        match spoil {
            "damaged" => std::fs::write(path, "-----BEGIN PRIVATE KEY-----\n").unwrap(),
            "expired" => tokio::time::sleep(seconds(4000)).await,
            _ => FakeCa::new(world.clock.clone()).write_root(&world.folder.path().join("ca.pem")),
        }
        let spoiled = std::fs::read(world.files().remove(0)).unwrap();
        let identities = world.start();
        identities.want(wanted(&["cart"]));
        match identities.credential(&id("cart"), SOON).await {
            Ok(fresh) => {
                assert_ne!(fresh.serial, first.serial, "{spoil}");
                while world.files().len() != 1 || std::fs::read(world.files().remove(0)).unwrap() == spoiled {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Err(error) => {
                assert!(spoil == "of other roots" && error.to_string().contains("roots"), "{spoil}: {error}")
            }
        }
    }
    assert!(world.ca.asked() >= asked + 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_too_early_waits_for_the_identity_to_be_wanted() {
    let world = World::new();
    let identities = world.start();
    let asking = identities.clone();
    let early = tokio::spawn(async move { asking.credential(&id("cart"), SOON).await });
    tokio::time::sleep(seconds(1)).await;
    identities.want(wanted(&["cart"]));
    early.await.unwrap().unwrap();
}

#[test]
fn workers_of_other_runtimes_are_woken() {
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (world, identities) = control.block_on(async {
        let world = World::new();
        let identities = world.start();
        (world, identities)
    });
    let asking = identities.clone();
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(asking.credential(&id("cart"), seconds(20)))
    });
    identities.want(wanted(&["cart"]));
    assert_eq!(worker.join().unwrap().unwrap().identity, id("cart"));
    drop(world);
}

async fn connect(
    client: &Credential,
    server: &Credential,
) -> (impl AsyncEnds + use<>, impl AsyncEnds + use<>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let connect = TlsConnector::from(client.client.clone()).connect(name, near);
    let (near, far) = tokio::join!(connect, TlsAcceptor::from(server.server.clone()).accept(far));
    (near.unwrap(), far.unwrap())
}

trait AsyncEnds: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> AsyncEnds for T {}

#[tokio::test(start_paused = true)]
async fn a_live_connection_survives_renewal_and_new_ones_meet_old_ones() {
    let world = World::new();
    let identities = world.start();
    identities.want(wanted(&["cart", "web"]));
    let (cart, web) = (
        identities.credential(&id("cart"), SOON).await.unwrap(),
        identities.credential(&id("web"), SOON).await.unwrap(),
    );
    let (mut near, mut far) = connect(&cart, &web).await;
    tokio::time::sleep(seconds(2000)).await;
    let renewed = identities.credential(&id("web"), SOON).await.unwrap();
    assert_ne!(renewed.generation, web.generation);
    near.write_all(b"still here").await.unwrap();
    let mut said = [0; 10];
    far.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"still here");
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_distrusted_when_its_root_goes_and_not_before() {
    let world = World::new();
    let identities = world.start();
    identities.want(wanted(&["cart"]));
    identities.credential(&id("cart"), SOON).await.unwrap();
    let request = certificate_request(&generate().unwrap(), &id("web")).unwrap();
    let signed = world.ca.sign(&id("web"), request, seconds(3600)).await.unwrap();
    let proof = identities.proof(Some(&signed.certificates));
    let distrusting = tokio::spawn({
        let identities = identities.clone();
        async move { identities.distrust(&proof).await.to_string() }
    });
    // Renewed with the same roots.
    tokio::time::sleep(seconds(2000)).await;
    assert!(world.ca.asked() >= 2 && !distrusting.is_finished());
    // Another root joins it, then it goes. What was signed by it holds no longer, at the next look at the file.
    let path = world.folder.path().join("ca.pem");
    let other = FakeCa::new(world.clock.clone());
    let old = std::fs::read_to_string(&path).unwrap();
    other.write_root(&path);
    let new = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, old + &new).unwrap();
    tokio::time::sleep(seconds(4000)).await;
    assert!(!distrusting.is_finished());
    std::fs::write(&path, new).unwrap();
    let said = tokio::time::timeout(seconds(8000), distrusting).await.unwrap().unwrap();
    assert!(said.contains("none of the roots"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn another_signer_is_followed_within_its_time_and_that_is_reported() {
    let world = World::new();
    let trust = world.trust();
    let identities = world.start_with(trust.clone());
    tokio::spawn(identities.clone().report_trust());
    let names: Vec<_> = (0..20).map(|at| format!("pod-{at}")).collect();
    identities.want(names.iter().map(|name| id(name)).collect());
    for name in &names {
        identities.credential(&id(name), seconds(60)).await.unwrap();
    }
    trust.accept(world.ca.bundle("b1", &[])).await;
    let mut reports = trust.reports();
    let first = world.ca.bundle("", &[]).signer;
    let done = |bundle: &'static str, signer: String| {
        move |report: &warren_common::model::TrustReport| {
            report.bundles.iter().eq([bundle]) && report.signers.iter().eq([&signer])
        }
    };
    reports.wait_for(done("b1", first.clone())).await.unwrap();
    assert_eq!(world.ca.asked(), 20, "what the right one has signed is not renewed");

    world.ca.succeed();
    let told = tokio::time::Instant::now();
    trust.accept(world.ca.bundle("b1", &[])).await;
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(world.ca.asked(), 20, "not at once: other replicas may sign with the old one");
    tokio::time::sleep(seconds(50)).await;
    assert!((22..40).contains(&world.ca.asked()), "not all at the same time: {}", world.ca.asked());
    reports.wait_for(done("b1", world.ca.bundle("", &[]).signer)).await.unwrap();
    assert!(told.elapsed() < seconds(101) && world.ca.asked() == 40, "{:?}", told.elapsed());
}

#[tokio::test(start_paused = true)]
async fn handshakes_go_by_the_roots_of_now() {
    let world = World::new();
    let trust = world.trust();
    let identities = world.start_with(trust.clone());
    identities.want(wanted(&["cart"]));
    let first = identities.credential(&id("cart"), SOON).await.unwrap();
    // Another mesh's pod, or a new root's.
    let other = FakeCa::new(world.clock.clone());
    let far = World { folder: tempfile::tempdir().unwrap(), clock: world.clock.clone(), ca: other.clone() };
    world.ca.write_root(&far.folder.path().join("ca.pem"));
    let both = Trust::new(far.folder.path().join("ca.pem"), None);
    both.accept(other.bundle("both", &[&*world.ca])).await;
    let others = far.start_with(both);
    others.want(wanted(&["web"]));
    let web = others.credential(&id("web"), SOON).await.unwrap();
    let is_let_in = async |server: &Credential| {
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("10.0.0.1").unwrap();
        let connect = TlsConnector::from(web.client.clone()).connect(name, near);
        let (_near, far) = tokio::join!(connect, TlsAcceptor::from(server.server.clone()).accept(far));
        far.is_ok()
    };
    assert!(!is_let_in(&first).await);
    trust.accept(world.ca.bundle("two", &[&*other])).await;
    tokio::time::sleep(seconds(1)).await;
    let second = identities.credential(&id("cart"), SOON).await.unwrap();
    assert!(second.generation > first.generation && second.serial == first.serial);
    assert!(is_let_in(&second).await);
    trust.accept(world.ca.bundle("one", &[])).await;
    tokio::time::sleep(seconds(1)).await;
    let third = identities.credential(&id("cart"), SOON).await.unwrap();
    assert!(!is_let_in(&third).await && third.serial == first.serial);

    // Its own root goes: it is used no more, and nobody can give a better one.
    trust.accept(other.bundle("others", &[])).await;
    tokio::time::sleep(seconds(1)).await;
    let error = identities.credential(&id("cart"), seconds(1)).await.unwrap_err();
    assert!(matches!(&error, CredentialError::Pending { reason, .. } if reason.contains("roots")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_root_that_is_retired_vouches_for_what_is_open() {
    let world = World::new();
    let trust = world.trust();
    let identities = world.start_with(trust.clone());
    let other = FakeCa::new(world.clock.clone());
    trust.accept(world.ca.bundle("both", &[&*other])).await;
    let request = certificate_request(&generate().unwrap(), &id("web")).unwrap();
    let signed = other.sign(&id("web"), request, seconds(3600)).await.unwrap();
    let proof = identities.proof(Some(&signed.certificates));
    let distrusting = tokio::spawn(async move { identities.distrust(&proof).await.to_string() });
    tokio::time::sleep(seconds(1)).await;
    let retired = other.bundle("", &[]).roots;
    trust.accept(warren_common::model::TrustBundle { retired, ..world.ca.bundle("one", &[]) }).await;
    tokio::time::sleep(seconds(10)).await;
    assert!(!distrusting.is_finished());
    trust.accept(world.ca.bundle("forgotten", &[])).await;
    let said = tokio::time::timeout(SOON, distrusting).await.unwrap().unwrap();
    assert!(said.contains("none of the roots"), "{said}");
}

/// Between a handshake and the first wait, or between two agents, roots may go too.
#[tokio::test(start_paused = true)]
async fn a_root_that_went_before_anybody_waited_is_seen() {
    let world = World::new();
    let trust = world.trust();
    let identities = world.start_with(trust.clone());
    let other = FakeCa::new(world.clock.clone());
    trust.accept(world.ca.bundle("both", &[&*other])).await;
    let request = certificate_request(&generate().unwrap(), &id("web")).unwrap();
    let signed = other.sign(&id("web"), request, seconds(3600)).await.unwrap();
    let [taken, waited] = [(); 2].map(|()| identities.proof(Some(&signed.certificates)));
    let moved = Proof::from_moved(&taken.to_moved());
    for proof in [&waited, &moved] {
        assert!(tokio::time::timeout(SOON, identities.distrust(proof)).await.is_err(), "both are trusted");
    }
    let arrived = Proof::from_moved(&taken.to_moved());
    trust.accept(world.ca.bundle("one", &[])).await;
    for proof in [taken, waited, moved, arrived] {
        let said = tokio::time::timeout(SOON, identities.distrust(&proof)).await.unwrap().to_string();
        assert!(said.contains("none of the roots"), "{said}");
    }
}
