//! The same application with the Gateway API: routes of services, to services of one version each.

use anyhow::{Result, ensure};
use warren_tests::lab::Lab;

use crate::samples::apply_files;
use crate::shares::{self, Counts, count};

pub(crate) fn routes_do_the_same(lab: &Lab) -> Result<()> {
    apply_files(lab, &["gateway-api/route-all-v1"])?;
    for service in ["productpage", "details", "reviews", "ratings"] {
        ensure!(count(lab, service, None, 20)? == Counts::from([("v1".to_owned(), 20)]), "{service}");
    }
    for (file, wanted) in [
        ("50-v3", [("v1", 0.5), ("v3", 0.5)].as_slice()),
        ("90-10", &[("v1", 0.9), ("v2", 0.1)]),
        ("v1", &[("v1", 1.0)]),
        ("v3", &[("v3", 1.0)]),
    ] {
        apply_files(lab, &["gateway-api/route-all-v1", &format!("gateway-api/route-reviews-{file}")])?;
        shares::hold(lab, file, wanted)?;
    }
    Ok(())
}
