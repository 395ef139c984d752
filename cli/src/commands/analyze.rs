//! `warren analyze`: manifests that nobody has applied yet, or what a cluster holds, looked at as the controller would.

use crate::args::{ClusterArgs, Output};
use crate::client::{block_on, saying};
use crate::cluster::{Cluster, Objects, objects};
use crate::offline::{names, read};
use crate::render::Style;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_controller::index::{Index, RootNamespaces};
use warren_controller::objects::Key;
use warren_controller::resolve::findings::{Finding, Severity, analyze};
use warren_controller::source::Change;
use warren_controller::source::manifests::{Unread, parse};

#[derive(Args, Debug)]
pub(crate) struct AnalyzeArgs {
    /// File or directory with manifests, `-` for standard input; may be given more than once. What they refer to must be
    /// among them, or in the cluster with --cluster
    #[arg(short, long = "filename", required_unless_present = "cluster", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Look at what the cluster holds; with --filename at what would change if the files were applied there
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    which: ClusterArgs,
    /// DNS suffix of the cluster's services
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// One thing to know, and where it stands.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Remark {
    #[serde(skip_serializing_if = "String::is_empty")]
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    severity: Severity,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

pub(crate) fn run(args: &AnalyzeArgs) -> Result<ExitCode> {
    let mut files = Vec::new();
    for path in &args.files {
        read(path, &mut files)?;
    }
    let held = args.cluster.then(|| block_on(of_cluster(&args.which))).transpose()?.transpose()?;
    let all_is_well = match (&held, files.len()) {
        (None, files) => format!("nothing is wrong in {files} files"),
        (Some(_), 0) => "nothing is wrong with the routes and policies of the cluster".to_owned(),
        (Some(_), files) => format!("applying {files} files changes nothing for the worse"),
    };
    let remarks = remarks(held, &files, &args.cluster_domain);
    match args.output {
        Output::Json => super::print_json(&remarks)?,
        Output::Table => super::print(&text(&remarks, &all_is_well, Style::detect()))?,
    }
    let is_wrong = remarks.iter().any(|remark| remark.severity == Severity::Error);
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn of_cluster(which: &ClusterArgs) -> Result<Objects> {
    let cluster = Cluster::connect(which).await?;
    Ok(saying("reading the cluster", objects(&cluster)).await?)
}

/// What is to be said about what the cluster holds, or about the manifests, the worst first; of both, what applying them would
/// change. Pure.
fn remarks(held: Option<Objects>, files: &[(String, String)], domain: &str) -> Vec<Remark> {
    let mut index = Index::new(RootNamespaces::default(), domain.into());
    let mut places: BTreeMap<Key, (String, u64)> = BTreeMap::new();
    let mut remarks = Vec::new();
    let (mut changes, others) = held.map(|held| (held.changes, (held.refused, held.unread))).unzip();
    let (refused, unread) = others.unzip();
    let mut ages = BTreeMap::new();
    for change in changes.iter_mut().flatten() {
        if let Change::Upsert(object) = change {
            let key = object.key();
            ages.extend(object.created_mut().map(|created| (key, *created)));
        }
        index.apply(change);
    }
    if files.is_empty() {
        let invalid = refused.into_iter().flatten();
        remarks
            .extend(invalid.map(|it| invalid_at(String::new(), None, Some(it.object.to_string()), it.why)));
        remarks.extend(unread.into_iter().flatten().map(|unread| Remark {
            file: String::new(),
            line: None,
            severity: Severity::Info,
            code: "not-read",
            text: unread.text,
            object: Some(unread.object),
            path: String::new(),
            fix: None,
        }));
    }
    let before =
        if changes.is_some() && !files.is_empty() { analyze(&index, &names(domain)) } else { Vec::new() };
    for (file, text) in files {
        match parse(text) {
            Ok(parsed) => {
                remarks.extend(parsed.unread.into_iter().map(|unread| not_read(file, unread)));
                for (mut object, line) in parsed.objects.into_iter().zip(parsed.lines) {
                    let key = object.key();
                    if let (Some(created), true) = (object.created_mut(), changes.is_some()) {
                        // What is replaced keeps its age; what is new is younger than all that there is.
                        *created = ages.get(&key).copied().unwrap_or(Some(i64::MAX));
                    }
                    places.insert(key, (file.clone(), line));
                    index.apply(&Change::Upsert(object));
                }
            }
            Err(error) => remarks.push(invalid_at(file.clone(), Some(error.line), None, error.reason)),
        }
    }
    let after = analyze(&index, &names(domain));
    let solved = before.iter().filter(|finding| !after.contains(finding)).cloned();
    let solved: Vec<_> = solved.map(|finding| remark(no_longer(finding), &places)).collect();
    let new = after.into_iter().filter(|finding| !before.contains(finding));
    remarks.extend(new.map(|finding| remark(finding, &places)));
    remarks.extend(solved);
    remarks.sort_by_key(|remark| remark.severity);
    remarks
}

fn invalid_at(file: String, line: Option<u64>, object: Option<String>, text: String) -> Remark {
    let (severity, code) = (Severity::Error, "invalid");
    Remark { file, line, severity, code, object, path: String::new(), text, fix: None }
}

fn not_read(file: &str, unread: Unread) -> Remark {
    let (severity, code) = match unread.meant {
        Some(_) => (Severity::Error, "no-such-kind"),
        None => (Severity::Warning, "not-read"),
    };
    let (file, line, text) = (file.to_owned(), Some(unread.line), unread.to_string());
    Remark { file, line, severity, code, object: Some(unread.object), path: String::new(), text, fix: None }
}

fn no_longer(finding: Finding) -> Finding {
    let text = format!("no longer: {}", finding.text);
    Finding { severity: Severity::Info, text, fix: None, ..finding }
}

fn remark(finding: Finding, places: &BTreeMap<Key, (String, u64)>) -> Remark {
    let (file, line) = places.get(&finding.object).cloned().unzip();
    let Finding { severity, code, object, path, text, fix } = finding;
    Remark {
        file: file.unwrap_or_default(),
        line,
        severity,
        code,
        object: Some(object.to_string()),
        path,
        text,
        fix,
    }
}

/// A line each, as compilers have them, so that editors find the place.
fn text(remarks: &[Remark], all_is_well: &str, style: Style) -> String {
    let mut text = String::new();
    for remark in remarks {
        let severity = match remark.severity {
            Severity::Error => style.red("error"),
            Severity::Warning => style.yellow("warning"),
            Severity::Info => style.dim("info"),
        };
        let place = match (&*remark.file, remark.line) {
            ("", _) => String::new(),
            (file, None) => format!("{file}: "),
            (file, Some(line)) => format!("{file}:{line}: "),
        };
        let object =
            remark.object.as_ref().map_or(String::new(), |object| format!("{}: ", style.bold(object)));
        let path = if remark.path.is_empty() { String::new() } else { format!("{}: ", remark.path) };
        let code = style.dim(&format!("[{}]", remark.code));
        text += &format!("{place}{severity}: {object}{path}{} {code}\n", remark.text);
        if let Some(fix) = &remark.fix {
            text += &format!("    {fix}\n");
        }
    }
    if remarks.is_empty() {
        text += &format!("{} {all_is_well}\n", style.tick());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Refused, Unread};
    use warren_controller::objects::{Kind, Name};

    const FILE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.shop]
  http: [{route: [{destination: {host: gone}}]}]
";

    #[test]
    fn remarks_name_file_line_object_and_field() {
        let files = [("a.yaml".to_owned(), FILE.to_owned()), ("b.yaml".to_owned(), "kind: [".to_owned())];
        let remarks = remarks(None, &files, "cluster.local");
        let text = text(&remarks, "well", Style::plain(false));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("b.yaml:1: error: "), "{text}");
        assert!(lines[0].ends_with("[invalid]"), "{text}");
        assert_eq!(
            lines[1..],
            [
                "a.yaml:6: error: VirtualService shop/web: spec.http[0].route[0].destination: gone.shop.svc.cluster.local: \
                 no service that shop knows has this name; requests get 503 [destination-not-found]",
                "a.yaml:6: warning: VirtualService shop/web: spec.hosts[0]: no service has the name web.shop: nothing in \
                 the mesh follows these rules [host-not-found]",
                "    A name with a dot stands as it is: write web.shop.svc.cluster.local",
            ]
        );
    }

    #[test]
    fn what_is_not_read_is_said() {
        let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\n".to_owned();
        let remarks = remarks(None, &[("a.yaml".to_owned(), gateway)], "cluster.local");
        assert_eq!(
            text(&remarks, "well", Style::plain(false)),
            "a.yaml:1: warning: Gateway default/g: objects of this kind (networking.istio.io/v1) are not applied yet: \
             it has no effect [not-read]\n"
        );
        let mistaken =
            "apiVersion: networking.istio/v1\nkind: VirtualService\nmetadata: {name: v}\n".to_owned();
        let remarks = super::remarks(None, &[("a.yaml".to_owned(), mistaken)], "cluster.local");
        assert!(remarks[0].severity == Severity::Error && remarks[0].code == "no-such-kind", "{remarks:?}");
    }

    #[test]
    fn what_is_right_is_said_too() {
        let right = FILE.replace("web.shop]", "web]").replace("gone", "web");
        let remarks = remarks(None, &[("a.yaml".to_owned(), right)], "cluster.local");
        assert_eq!(text(&remarks, "all is well", Style::plain(false)), "ok all is well\n");
    }

    /// What a cluster would hand us of these manifests.
    fn held(text: &str) -> Objects {
        let objects = parse(text).unwrap().objects;
        Objects {
            changes: objects.into_iter().map(Change::Upsert).collect(),
            refused: vec![],
            unread: vec![],
        }
    }

    #[test]
    fn a_cluster_has_objects_and_no_files() {
        let mut bad = held(FILE);
        let object = Key { kind: Kind::DestinationRule, name: Name::new("shop", "odd") };
        bad.refused.push(Refused { object, why: "spec.host is missing".to_owned() });
        bad.unread.push(Unread { object: "Gateway shop/edge".to_owned(), text: "not applied".to_owned() });
        let remarks = remarks(Some(bad), &[], "cluster.local");
        let text = text(&remarks, "well", Style::plain(false));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "error: DestinationRule shop/odd: spec.host is missing [invalid]");
        assert!(lines[1].starts_with("error: VirtualService shop/web: spec.http[0]"), "{text}");
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[4], "info: Gateway shop/edge: not applied [not-read]");
    }

    #[test]
    fn files_are_compared_with_the_cluster_that_they_would_be_applied_to() {
        let right = FILE.replace("web.shop]", "web]").replace("gone", "web");
        let file = |text: &str| [("a.yaml".to_owned(), text.to_owned())];
        let none = remarks(Some(held(&right)), &file(&right), "cluster.local");
        assert_eq!(none, []);
        // Old trouble is none of theirs; a service that is not in the files is in the cluster.
        let route = |host: &str| {
            format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: more, namespace: shop}}
spec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: web}}}}]}}]}}\n")
        };
        assert_eq!(remarks(Some(held(FILE)), &file(&route("web")), "cluster.local"), []);
        let new = remarks(Some(held(FILE)), &file(&route("nobody")), "cluster.local");
        assert!(new.len() == 1 && new[0].code == "host-not-found" && new[0].line == Some(1), "{new:?}");
        // What is applied is younger than what is there, whatever their names are.
        let service = right.split("---").next().unwrap();
        let aged = route("web").replace("name: more", "name: z, creationTimestamp: '2026-01-01T00:00:00Z'");
        let there = held(&format!("{service}---\n{aged}"));
        let second = remarks(Some(there), &file(&route("web")), "cluster.local");
        assert!(second.len() == 1 && second[0].code == "host-conflict", "{second:?}");
        assert_eq!(second[0].object.as_deref(), Some("VirtualService shop/more"));
        let better = remarks(Some(held(FILE)), &file(&right), "cluster.local");
        assert!(better.iter().all(|remark| remark.severity == Severity::Info), "{better:?}");
        assert!(better.len() == 2 && better[0].text.starts_with("no longer: "), "{better:?}");
    }
}
