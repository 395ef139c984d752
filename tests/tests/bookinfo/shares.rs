//! How often whom: counted, and compared with what chance allows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use warren_tests::lab::Lab;

/// Answers by version.
pub(crate) type Counts = BTreeMap<String, u32>;

/// Requests of a count with weights.
const MANY: u32 = 500;
/// How often a right share may be taken for a wrong one.
const FALSE_ALARM: f64 = 1e-7;

/// What a user is answered to the requests to a URL, each on a line of its own.
pub(crate) fn answered(lab: &Lab, url: &str, user: Option<&str>) -> Result<String> {
    let mut curl = lab.pod("client").curl(["-m", "100", "-w", "\n"]);
    if let Some(user) = user {
        curl = curl.args(["-H", &format!("end-user: {user}")]);
    }
    curl.arg(url).within(Duration::from_secs(100)).stdout()
}

/// Which versions of a service answer so many requests of one user, on one connection.
pub(crate) fn count(lab: &Lab, service: &str, user: Option<&str>, times: u32) -> Result<Counts> {
    let url = format!("http://{service}:9080/[1-{times}]");
    let text = answered(lab, &url, user)?;
    let mut counts = Counts::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let version = answer["version"].as_str().unwrap_or(line).to_owned();
        *counts.entry(version).or_default() += 1;
    }
    Ok(counts)
}

/// Fails unless each version of reviews got its share, and nobody else anything.
pub(crate) fn hold(lab: &Lab, what: &str, wanted: &[(&str, f64)]) -> Result<()> {
    let seen = count(lab, "reviews", None, MANY)?;
    ensure!(seen.values().sum::<u32>() == MANY, "{what}: {seen:?}");
    for (version, share) in wanted {
        let (least, most) = bounds(MANY, *share);
        let count = seen.get(*version).copied().unwrap_or_default();
        ensure!((least..=most).contains(&count), "{what}: {seen:?}, {version} should have {least} to {most}");
    }
    ensure!(seen.keys().all(|version| wanted.iter().any(|(known, _)| known == version)), "{what}: {seen:?}");
    Ok(())
}

/// The least and the most of `n` that chance gives to a share of `p`, but for [`FALSE_ALARM`].
fn bounds(n: u32, p: f64) -> (u32, u32) {
    if p >= 1.0 {
        return (n, n);
    }
    // The binomial distribution, each from the one before.
    let mut all = vec![f64::from(n) * (1.0 - p).ln()];
    for k in 1..=n {
        let step = (f64::from(n - k + 1) / f64::from(k) * p / (1.0 - p)).ln();
        all.push(all[all.len() - 1] + step);
    }
    let tail = |values: &mut dyn Iterator<Item = f64>| {
        let mut sum = 0.0;
        let outside = values.take_while(|value| {
            sum += value.exp();
            sum < FALSE_ALARM / 2.0
        });
        u32::try_from(outside.count()).unwrap_or(n)
    };
    (tail(&mut all.iter().copied()), n - tail(&mut all.iter().rev().copied()))
}

#[test]
fn bounds_are_those_of_the_binomial_distribution() {
    // 5.3 deviations of 11.2 and of 6.7 around 250 and 50.
    let (least, most) = bounds(500, 0.5);
    assert!((185..=195).contains(&least) && most == 500 - least, "{least} {most}");
    let (least, most) = bounds(500, 0.1);
    assert!((15..=22).contains(&least) && (83..=93).contains(&most), "{least} {most}");
    assert_eq!(bounds(500, 1.0), (500, 500));
}
