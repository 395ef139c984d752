use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

struct World {
    folder: TempDir,
    roots: Vec<rcgen::Certificate>,
}

impl World {
    fn new() -> Self {
        let root = |_| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap()
        };
        Self { folder: tempfile::tempdir().unwrap(), roots: (0..3).map(root).collect() }
    }

    fn file(&self, roots: &[usize]) {
        let text: String = roots.iter().map(|at| self.roots[*at].pem()).collect();
        std::fs::write(self.folder.path().join("ca.pem"), text).unwrap();
    }

    fn bundle(&self, id: &str, roots: &[usize], retired: &[usize]) -> TrustBundle {
        let ders = |all: &[usize]| all.iter().map(|at| self.roots[*at].der().to_vec()).collect();
        let (roots, retired) = (ders(roots), ders(retired));
        TrustBundle { id: id.to_owned(), roots, retired, signer: "s".to_owned(), ..TrustBundle::default() }
    }

    fn trust(&self) -> Trust {
        Trust::new(self.folder.path().join("ca.pem"), Some(&self.folder.path().join("state")))
    }

    fn roots(&self, trust: &Trust) -> Vec<usize> {
        let anchors = trust.current().unwrap();
        let at = |der: &CertificateDer<'_>| self.roots.iter().position(|root| root.der() == der).unwrap();
        anchors.certificates.iter().map(at).collect()
    }
}

#[tokio::test]
async fn what_the_controller_says_counts_and_outlives_the_agent() {
    let world = World::new();
    let trust = world.trust();
    assert!(matches!(trust.refresh().await, Err(TrustError::Read { .. })) && trust.current().is_none());
    world.file(&[0]);
    let mut changed = trust.changed();
    assert_eq!(trust.refresh().await.unwrap().id, FROM_FILE);
    assert!(changed.has_changed().unwrap());
    trust.accept(world.bundle("both", &[0, 1], &[])).await;
    assert_eq!(world.roots(&trust), [0, 1]);
    changed.mark_unchanged();
    trust.refresh().await.unwrap();
    assert!(!changed.has_changed().unwrap());

    // The old one is dropped, in order: open connections may have been proven by it.
    world.file(&[0, 1]);
    trust.accept(world.bundle("new", &[1], &[0])).await;
    assert!(changed.has_changed().unwrap());
    let anchors = trust.current().unwrap();
    assert_eq!((anchors.store.len(), anchors.open.len(), anchors.signer.as_deref()), (1, 2, Some("s")));

    // The next run starts from it, and the file, which is behind, does not bring the old one back.
    let again = world.trust();
    assert_eq!(again.refresh().await.unwrap().id, "new");
    assert_eq!(world.roots(&again), [1]);
    // A CA made anew, or an agent that was away for all of it.
    world.file(&[2]);
    assert_eq!(again.refresh().await.unwrap().id, FROM_FILE);
    assert_eq!((world.roots(&again), again.current().unwrap().open.len()), (vec![2], 1));
}

#[tokio::test]
async fn what_is_not_good_changes_nothing() {
    let world = World::new();
    let trust = world.trust();
    world.file(&[0]);
    trust.refresh().await.unwrap();
    let nonsense = TrustBundle { roots: vec![vec![1, 2, 3]], ..TrustBundle::default() };
    trust.accept(nonsense).await;
    assert_eq!(world.roots(&trust), [0]);
    for bad in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(world.folder.path().join("ca.pem"), bad).unwrap();
        trust.refresh().await.unwrap();
        assert_eq!(world.roots(&trust), [0], "{bad}");
        assert!(matches!(world.trust().refresh().await, Err(TrustError::Content { .. })), "{bad}");
    }
    std::fs::create_dir_all(world.folder.path().join("state")).unwrap();
    std::fs::write(world.folder.path().join("state/trust.json"), "{}").unwrap();
    world.file(&[1]);
    let trust = world.trust();
    trust.refresh().await.unwrap();
    assert_eq!(world.roots(&trust), [1]);
}
