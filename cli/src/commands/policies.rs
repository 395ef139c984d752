//! `warren policies`.

use crate::agents::find;
use crate::args::{AskArgs, Output, ScopeArgs, name};
use crate::client::block_on;
use crate::render::{self, Style};
use anyhow::Result;
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use warren_common::model::admin::Policies;

#[derive(Args, Debug)]
pub(crate) struct PoliciesArgs {
    /// Only the policies that guard this pod, or the pods of this workload
    #[arg(value_name = "WORKLOAD", value_parser = name)]
    workload: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    ask: AskArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(crate) fn run(args: &PoliciesArgs) -> Result<ExitCode> {
    let (namespace, answers) = block_on(async {
        let agents = find(&args.ask, Some(&args.scope), None).await?;
        anyhow::Ok((agents.namespace.clone(), agents.ask::<Policies>("/v1/policies").await?))
    })??;
    let code = answers.code();
    let mut shown = merged(answers.given.into_iter().map(|(_, found)| found));
    keep(&mut shown, namespace.as_deref(), args.workload.as_deref());
    match args.output {
        Output::Table => {
            let about = args.workload.as_deref();
            super::print(&render::policy::policies(&shown, namespace.as_deref(), about, Style::detect()))?;
        }
        Output::Json => super::print_json(&super::Told { answer: shown, unreachable: answers.unreachable })?,
    }
    Ok(code)
}

/// What any agent knows, once, with the pods of all of them.
fn merged(found: impl Iterator<Item = Policies>) -> Policies {
    let mut all = Policies { known: true, policies: Vec::new(), pods: Vec::new() };
    let mut once = BTreeMap::new();
    for found in found {
        all.known &= found.known;
        for view in found.policies {
            let known = once.entry(view.name.clone()).or_insert_with(|| view.clone());
            // What one agent cannot use is worth more than that another can.
            if view.refused.is_some() {
                *known = view;
            }
        }
        all.pods.extend(found.pods);
    }
    all.policies = once.into_values().collect();
    all.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    all
}

/// Only what is of a namespace or guards a pod of it; with a workload, only what guards that.
fn keep(shown: &mut Policies, namespace: Option<&str>, workload: Option<&str>) {
    shown.pods.retain(|pod| {
        namespace.is_none_or(|namespace| *pod.namespace == *namespace)
            && workload.is_none_or(|workload| *pod.name == *workload || *pod.workload == *workload)
    });
    let guarding: BTreeSet<_> = shown.pods.iter().flat_map(|pod| pod.policies.iter().cloned()).collect();
    shown.policies.retain(|view| {
        let of_namespace = namespace.is_none_or(|namespace| **view.name.namespace() == *namespace);
        guarding.contains(&view.name) || (workload.is_none() && of_namespace)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(policies: &[(&str, Option<&str>)], pods: &[(&str, &[&str])]) -> Policies {
        let view = |(name, refused): &(&str, Option<&str>)| serde_json::json!({"name": name, "policy": null, "refused": refused});
        let pod = |(name, policies): &(&str, &[&str])| {
            let (namespace, name) = name.split_once('/').unwrap();
            serde_json::json!({"namespace": namespace, "name": name, "workload": name, "policies": policies,
                "peer_authentication": {"all": {"strict": false, "rule": ""}, "ports": {}}})
        };
        let (policies, pods): (Vec<_>, Vec<_>) =
            (policies.iter().map(view).collect(), pods.iter().map(pod).collect());
        serde_json::from_value(serde_json::json!({"known": true, "policies": policies, "pods": pods}))
            .unwrap()
    }

    fn names(shown: &Policies) -> Vec<String> {
        shown.policies.iter().map(|view| view.name.to_string()).collect()
    }

    #[test]
    fn agents_are_united_and_trouble_is_kept() {
        let one = sample(&[("shop/a", None), ("bank/b", None)], &[("shop/web", &["shop/a"])]);
        let two = sample(&[("shop/a", Some("new"))], &[("bank/db", &[])]);
        let all = merged([one, two].into_iter());
        assert_eq!(names(&all), ["bank/b", "shop/a"]);
        assert_eq!(all.policies[1].refused.as_deref(), Some("new"));
        assert_eq!(all.pods.len(), 2);
    }

    #[test]
    fn a_namespace_shows_what_is_in_it_and_what_guards_it() {
        let all = || {
            sample(
                &[("bank/b", None), ("root/all", None), ("shop/a", None), ("shop/x", None)],
                &[("shop/web", &["root/all", "shop/a"]), ("bank/db", &["bank/b", "root/all"])],
            )
        };
        for (namespace, workload, expected) in [
            (None, None, &["bank/b", "root/all", "shop/a", "shop/x"][..]),
            (Some("shop"), None, &["root/all", "shop/a", "shop/x"]),
            (Some("shop"), Some("web"), &["root/all", "shop/a"]),
            (None, Some("db"), &["bank/b", "root/all"]),
            (None, Some("nobody"), &[]),
        ] {
            let mut shown = all();
            keep(&mut shown, namespace, workload);
            assert_eq!(names(&shown), expected, "{namespace:?} {workload:?}");
        }
    }
}
