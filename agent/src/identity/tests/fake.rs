//! A CA that signs what it is told to, right or wrong, and a clock that follows tokio's.

use crate::identity::{CaError, CertificateAuthority, SignedChain, Signing};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use warren_common::model::{Identity, TrustBundle};

pub(super) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Starts at the real time, so that real TLS stacks agree, and runs with tokio's clock.
pub(super) fn clock() -> Clock {
    let (system, instant) = (SystemTime::now(), Instant::now());
    Arc::new(move || system + instant.elapsed())
}

pub(super) fn id(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).unwrap()
}

/// What the next certificates look like.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) fail: Option<&'static str>,
    /// Instead of the identity that was asked for.
    pub(super) names: Option<Vec<SanType>>,
    /// From notBefore, which is this much before now.
    pub(super) lifetime: Duration,
    pub(super) age: Duration,
    pub(super) foreign_root: bool,
    pub(super) foreign_key: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            fail: None,
            names: None,
            lifetime: Duration::from_secs(3600),
            age: Duration::ZERO,
            foreign_root: false,
            foreign_key: false,
        }
    }
}

type Root = CertifiedIssuer<'static, KeyPair>;

pub(super) struct FakeCa {
    root: Root,
    intermediate: Root,
    foreign: Root,
    clock: Clock,
    recipe: Mutex<Recipe>,
    /// Signs instead, when there is one.
    successor: Mutex<Option<Root>>,
    asked: AtomicUsize,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

impl FakeCa {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        let root = |name| Root::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap();
        let roots = (root("warren test root"), root("another root"));
        let key = KeyPair::generate().unwrap();
        let intermediate = Root::signed_by(ca_params("warren test intermediate"), key, &roots.0).unwrap();
        Arc::new(Self {
            root: roots.0,
            intermediate,
            foreign: roots.1,
            clock,
            recipe: Mutex::default(),
            successor: Mutex::default(),
            asked: AtomicUsize::new(0),
        })
    }

    pub(super) fn cook(&self, recipe: Recipe) {
        *self.recipe.lock().unwrap() = recipe;
    }

    /// How many certificates were asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A new certificate signs from now on.
    pub(super) fn succeed(&self) {
        let key = KeyPair::generate().unwrap();
        let next = Root::signed_by(ca_params("warren test successor"), key, &self.root).unwrap();
        *self.successor.lock().unwrap() = Some(next);
    }

    /// What the controller would say about whom to trust, beside other roots.
    pub(super) fn bundle(&self, id: &str, others: &[&Self]) -> TrustBundle {
        let successor = self.successor.lock().unwrap();
        let signer = successor.as_ref().unwrap_or(&self.intermediate);
        let signer = Sha256::digest(signer.der()).iter().map(|byte| format!("{byte:02x}")).collect();
        let others = others.iter().map(|other| other.root.der().to_vec());
        TrustBundle {
            id: id.to_owned(),
            roots: std::iter::once(self.root.der().to_vec()).chain(others).collect(),
            retired: Vec::new(),
            signer,
            renew_within: Duration::from_secs(100),
        }
    }

    pub(super) fn write_root(&self, path: &Path) {
        std::fs::write(path, self.root.pem()).unwrap();
    }

    pub(super) fn root_pem(&self) -> String {
        self.root.pem()
    }

    fn answer(&self, identity: &Identity, csr: &str) -> Result<SignedChain, CaError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let recipe = self.recipe.lock().unwrap().clone();
        if let Some(message) = recipe.fail {
            return Err(CaError::Refused { code: "unavailable".to_owned(), message: message.to_owned() });
        }
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = recipe.names.unwrap_or_else(|| vec![uri(&identity.to_string())]);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let not_before = (self.clock)() - recipe.age;
        params.not_before = not_before.into();
        params.not_after = (not_before + recipe.lifetime).into();
        let successor = self.successor.lock().unwrap();
        let own = successor.as_ref().unwrap_or(&self.intermediate);
        let issuer = if recipe.foreign_root { &self.foreign } else { own };
        let leaf = if recipe.foreign_key {
            params.signed_by(&KeyPair::generate().unwrap(), issuer)
        } else {
            params.signed_by(&request.public_key, issuer)
        };
        SignedChain::from_pem(leaf.unwrap().pem() + &own.pem() + &self.root.pem())
    }
}

impl CertificateAuthority for FakeCa {
    fn sign<'a>(&'a self, identity: &'a Identity, csr_pem: String, _validity: Duration) -> Signing<'a> {
        Box::pin(async move { self.answer(identity, &csr_pem) })
    }
}
