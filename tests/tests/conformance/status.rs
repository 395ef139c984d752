//! What the controller says about a case's routes.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use warren_tests::lab::Lab;

/// What is wrong with the status of these routes in their generation, if anything.
pub(crate) fn check(lab: &Lab, routes: &[Value], resolved: Option<&str>) -> Result<()> {
    let listed = lab.controller_admin("/v1/routes")?;
    let listed = listed.as_array().context("no list of routes")?;
    for route in routes {
        let key = |object: &Value| {
            let metadata = &object["metadata"];
            (object["kind"].clone(), metadata["namespace"].clone(), metadata["name"].clone())
        };
        let found = listed.iter().find(|one| key(one) == key(route));
        let found = found.with_context(|| format!("{:?} is not listed", key(route)))?;
        of_parents(route, &found["status"]["parents"], resolved)?;
    }
    Ok(())
}

fn of_parents(route: &Value, parents: &Value, resolved: Option<&str>) -> Result<()> {
    let wanted = route["spec"]["parentRefs"].as_array().context("a route without parents")?;
    let found = parents.as_array().context("no parents")?;
    let generation = &route["metadata"]["generation"];
    ensure!(found.len() == wanted.len(), "{parents} where {wanted:?} should be");
    for parent in wanted {
        let entry = found.iter().find(|entry| entry["parentRef"] == *parent);
        let entry = entry.with_context(|| format!("there is no {parent} in {parents}"))?;
        ensure!(entry["controllerName"] == "warren.dev/controller", "{entry}");
        let short =
            |one: &Value| json!([one["type"], one["status"], one["reason"], one["observedGeneration"]]);
        let conditions: Vec<_> = entry["conditions"].as_array().into_iter().flatten().map(short).collect();
        let status = if resolved.is_none() { "True" } else { "False" };
        let should = [
            json!(["Accepted", "True", "Accepted", generation]),
            json!(["ResolvedRefs", status, resolved.unwrap_or("ResolvedRefs"), generation]),
        ];
        ensure!(conditions == should, "for {parent} {entry} instead of {should:?}");
    }
    Ok(())
}
