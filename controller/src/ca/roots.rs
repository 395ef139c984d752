//! Root, signing certificate and key on disk, in the layout of Istio's `cacerts`:
//! `root-cert.pem`, `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`.

use super::sign::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

const ROOT: &str = "root-cert.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOT_LIFETIME: Duration = Duration::days(3650);
/// Longest chain from the signing certificate to the root.
const MAX_CHAIN: usize = 8;

/// Why the CA can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A file can't be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Some files of the layout are there, others are not.
    #[error("{} is missing but other files of the CA are there; add it, or empty the directory to get a new CA", .0.display())]
    Incomplete(PathBuf),
    /// A file does not hold what it should.
    #[error("{}: {reason}", .path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A new CA could not be made.
    #[error("a new CA can't be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Loads the CA of a directory, or makes one there when it has none.
///
/// # Errors
/// When files are missing, don't fit together, or have expired.
pub fn load_or_create(
    directory: &Path,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Authority, RootsError> {
    let exists = |name: &str| directory.join(name).exists();
    if ![ROOT, CERTIFICATE, KEY, CHAIN].into_iter().any(exists) {
        create(directory, trust_domain, now)?;
        tracing::info!(directory = %directory.display(), "new CA made");
    }
    load(directory, now)
}

fn create(directory: &Path, trust_domain: &str, now: OffsetDateTime) -> Result<(), RootsError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| RootsError::Io { path: directory.to_owned(), error })?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, "warren root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = Vec::<ExtendedKeyUsagePurpose>::new();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + ROOT_LIFETIME;
    let root = params.self_signed(&key)?.pem();
    // The key first: whoever sees a certificate also finds its key. None overwrites what is there.
    for (name, content, mode) in [
        (KEY, &key.serialize_pem(), 0o600),
        (CHAIN, &root, 0o644),
        (CERTIFICATE, &root, 0o644),
        (ROOT, &root, 0o644),
    ] {
        let path = directory.join(name);
        write_new(&path, content.as_bytes(), mode).map_err(|error| RootsError::Io { path, error })?;
    }
    Ok(())
}

/// Writes a file that appears whole or not at all, and replaces none.
fn write_new(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary = path.with_extension("pem.new");
    let result = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike rename(2), link(2) fails when the name is taken.
        std::fs::hard_link(&temporary, path)
    })();
    match &result {
        // Another controller's, at work right now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.exists() => {}
        _ => std::fs::remove_file(&temporary)?,
    }
    result
}

fn load(directory: &Path, now: OffsetDateTime) -> Result<Authority, RootsError> {
    let roots = certificates(directory, ROOT)?;
    let own = certificates(directory, CERTIFICATE)?;
    let chain = match certificates(directory, CHAIN) {
        // Without intermediates there is nothing to say in it.
        Err(RootsError::Incomplete(_)) => Vec::new(),
        other => other?,
    };
    let key_path = directory.join(KEY);
    let bad_key = |reason: String| RootsError::Bad { path: key_path.clone(), reason };
    let key = KeyPair::from_pem(&read(&key_path)?)
        .map_err(|error| bad_key(format!("not a private key: {error}")))?;

    let path = directory.join(CERTIFICATE);
    let bad = |reason: &str| RootsError::Bad { path: path.clone(), reason: reason.to_owned() };
    let own = own.first().ok_or_else(|| bad("holds no certificate"))?;
    let parsed = parse(own).ok_or_else(|| bad("not a certificate"))?;
    if !parsed.is_ca() {
        return Err(bad("not the certificate of a CA (basicConstraints)"));
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(bad_key("not the key of ca-cert.pem".to_owned()));
    }
    let not_after = valid(&parsed, now).map_err(|reason| bad(&reason))?;
    let (intermediates, root) = path_to_root(own, &chain, &roots, now).map_err(|reason| bad(&reason))?;
    let root_not_after = parse(&root).map_or(not_after, |root| root.validity().not_after.to_datetime());
    // The root that signed the chain goes first.
    let others = roots.into_iter().filter(|other| *other != root).collect::<Vec<_>>();
    let roots = std::iter::once(root).chain(others).collect();
    let issuer = Issuer::from_ca_cert_der(own, key)?;
    Ok(Authority { issuer, intermediates, roots, not_after: not_after.min(root_not_after), root_not_after })
}

type ChainAndRoot = (Vec<CertificateDer<'static>>, CertificateDer<'static>);

/// From the signing certificate upwards; itself included unless it is the root.
fn path_to_root(
    own: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<ChainAndRoot, String> {
    let mut intermediates = Vec::new();
    let mut current = own;
    while !roots.contains(current) {
        if intermediates.len() == MAX_CHAIN {
            return Err(format!("more than {MAX_CHAIN} certificates up to the root"));
        }
        let parsed = parse(current).ok_or("a certificate of the chain is malformed")?;
        valid(&parsed, now).map_err(|reason| format!("{}: {reason}", parsed.subject()))?;
        intermediates.push(current.clone());
        let signed_it = |candidate: &&CertificateDer<'static>| {
            parse(candidate).is_some_and(|candidate| {
                candidate.subject() == parsed.issuer()
                    && parsed.verify_signature(Some(candidate.public_key())).is_ok()
            })
        };
        let above = roots.iter().chain(chain).filter(|candidate| *candidate != current).find(signed_it);
        current = above
            .ok_or_else(|| format!("its chain ends at {}: no root-cert.pem signed that", parsed.issuer()))?;
    }
    let parsed = parse(current).ok_or("the root certificate is malformed")?;
    valid(&parsed, now).map_err(|reason| format!("the root: {reason}"))?;
    Ok((intermediates, current.clone()))
}

fn valid(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    let (from, to) =
        (certificate.validity().not_before.to_datetime(), certificate.validity().not_after.to_datetime());
    if now < from {
        return Err(format!("not valid before {from}"));
    }
    if now >= to {
        return Err(format!("expired at {to}"));
    }
    Ok(to)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

fn certificates(directory: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let path = directory.join(name);
    let text = read(&path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    certificates.map_err(|error| RootsError::Bad { path, reason: format!("not PEM: {error}") })
}

fn read(path: &Path) -> Result<String, RootsError> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => RootsError::Incomplete(path.to_owned()),
        _ => RootsError::Io { path: path.to_owned(), error },
    })
}

#[cfg(test)]
#[path = "roots_tests.rs"]
mod tests;
