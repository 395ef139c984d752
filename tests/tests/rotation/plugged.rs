//! Files that an operator replaces.

use super::{LONG, Traffic, knock, phases_until_steady, roots, servers, status};
use crate::forge::{Ca, Valid};
use crate::turmoil::{SOON, at, shop, until_reached};
use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::path::Path;
use warren_tests::lab::poll_until;

type Root = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// Replaces a file as a careful operator does.
fn put(directory: &Path, name: &str, content: &str) -> Result<()> {
    let temporary = directory.join(format!(".{name}"));
    std::fs::write(&temporary, content)?;
    Ok(std::fs::rename(temporary, directory.join(name))?)
}

/// A signing certificate below `root`, and what shall be trusted.
fn plug_in(directory: &Path, root: &Root, roots: &str) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params("Corp signing").signed_by(&key, root)?.pem();
    put(directory, "ca-cert.pem", &certificate)?;
    put(directory, "ca-key.pem", &key.serialize_pem())?;
    put(directory, "cert-chain.pem", &certificate)?;
    put(directory, "root-cert.pem", roots)
}

#[test]
fn files_that_an_operator_replaces_are_followed_and_bad_ones_are_not() {
    shop().controller_arg("--ca-settle=2s").test(|lab| {
        let directory = lab.dir().join("ca");
        let root = |name: &str| anyhow::Ok(Root::self_signed(params(name), KeyPair::generate()?)?);
        let (first, second) = (root("Corp 1")?, root("Corp 2")?);
        plug_in(&directory, &first, &first.pem())?;
        lab.start_mesh()?;
        let _servers = servers(lab)?;
        let traffic = Traffic::start(lab)?;
        let old_papers = Ca::of_mesh(lab)?.sign(super::FRIEND, Valid::Now)?;
        let old_roots = roots(lab, "n1")?;
        let refused = lab.warren_ca(["rotate"]).run()?;
        ensure!(refused.stderr.contains("was plugged in"), "{refused:?}");

        // A key that is not the certificate's.
        let good = std::fs::read_to_string(directory.join("ca-key.pem"))?;
        put(&directory, "ca-key.pem", &KeyPair::generate()?.serialize_pem())?;
        poll_until("the bad key to be reported", SOON, || {
            let said = lab.problems().ok()?.iter().any(|problem| {
                let problem = problem.to_string();
                problem.contains("not the key of ca-cert.pem") && problem.contains("the last good CA stays")
            });
            said.then_some(())
        })?;
        ensure!(roots(lab, "n1")? == old_roots, "nothing has changed");
        put(&directory, "ca-key.pem", &good)?;
        poll_until("nothing to be reported", SOON, || lab.problems().ok()?.is_empty().then_some(()))?;

        // A new CA, with the old root beside the new one.
        plug_in(&directory, &second, &(first.pem() + &second.pem()))?;
        let seen = phases_until_steady(lab)?;
        ensure!(seen.ends_with(&["renewing".to_owned(), "steady".to_owned()]), "{seen:?}");
        let now = status(lab)?;
        ensure!(now["rotation"]["renewed"] == 2 && now["rotation"]["with_roots"] == 2, "{now:#}");
        traffic.must_be_clean()?;

        // At last the old root goes; whatever was proven by it is closed, and nobody enters by it again.
        put(&directory, "root-cert.pem", &second.pem())?;
        poll_until("the old root to be gone", LONG, || {
            let gone = |node: &str| Some(roots(lab, node).ok()?.is_disjoint(&old_roots));
            (gone("n1")? && gone("n2")?).then_some(())
        })?;
        let refused = knock(lab, &old_papers);
        ensure!(refused.is_err(), "old papers: {refused:?}");
        until_reached(&lab.pod("client"), &at(&lab.pod("far"), 9000))
    });
}
