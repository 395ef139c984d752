//! `warren analyze`: manifests that nobody has applied yet, looked at as the controller would.

use crate::args::Output;
use crate::render::Style;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use warren_controller::index::{Index, RootNamespaces};
use warren_controller::objects::Key;
use warren_controller::resolve::ResolveConfig;
use warren_controller::resolve::findings::{Finding, Severity, analyze};
use warren_controller::source::Change;
use warren_controller::source::manifests::parse;

#[derive(Args, Debug)]
pub(crate) struct AnalyzeArgs {
    /// File or directory with manifests, `-` for standard input; may be given more than once. What they refer to must be
    /// among them
    #[arg(short, long = "filename", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
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
    let remarks = remarks(&files, &args.cluster_domain);
    match args.output {
        Output::Json => super::print_json(&remarks)?,
        Output::Table => super::print(&text(&remarks, files.len(), Style::detect()))?,
    }
    let is_wrong = remarks.iter().any(|remark| remark.severity == Severity::Error);
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A file, or every manifest below a directory, in the order of their names.
fn read(path: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    let shown = path.display().to_string();
    if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        files.push(("(standard input)".to_owned(), text));
        return Ok(());
    }
    let failed = || format!("cannot read {shown}");
    if !path.is_dir() {
        files.push((shown.clone(), std::fs::read_to_string(path).with_context(failed)?));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(failed)?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    let before = files.len();
    for path in paths {
        let is_manifest = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if path.is_dir() || is_manifest {
            // A directory without manifests is no mistake inside of another one.
            let _ = read(&path, files).map_err(|error| tracing::debug!(%error, "left out"));
        }
    }
    if files.len() == before {
        bail!("{shown} holds no manifest (.yaml, .yml, .json)");
    }
    Ok(())
}

/// What is to be said about the manifests, the worst first. Pure.
fn remarks(files: &[(String, String)], domain: &str) -> Vec<Remark> {
    let mut index = Index::new(RootNamespaces::default(), domain.into());
    let mut places: BTreeMap<Key, (String, u64)> = BTreeMap::new();
    let mut remarks = Vec::new();
    for (file, text) in files {
        match parse(text) {
            Ok(parsed) => {
                remarks.extend(parsed.unread.into_iter().map(|unread| Remark {
                    file: file.clone(),
                    line: Some(unread.line),
                    severity: Severity::Warning,
                    code: "not-read",
                    text: unread.to_string(),
                    object: Some(unread.object),
                    path: String::new(),
                    fix: None,
                }));
                for (object, line) in parsed.objects.into_iter().zip(parsed.lines) {
                    places.insert(object.key(), (file.clone(), line));
                    index.apply(&Change::Upsert(object));
                }
            }
            Err(error) => remarks.push(Remark {
                file: file.clone(),
                line: Some(error.line),
                severity: Severity::Error,
                code: "invalid",
                object: None,
                path: String::new(),
                text: error.reason,
                fix: None,
            }),
        }
    }
    let config = ResolveConfig {
        cluster: "Kubernetes".into(),
        cluster_domain: domain.into(),
        trust_domain: "cluster.local".into(),
    };
    remarks.extend(analyze(&index, &config).into_iter().map(|finding| {
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
    }));
    remarks.sort_by_key(|remark| remark.severity);
    remarks
}

/// A line each, as compilers have them, so that editors find the place.
fn text(remarks: &[Remark], files: usize, style: Style) -> String {
    let mut text = String::new();
    for remark in remarks {
        let severity = match remark.severity {
            Severity::Error => style.red("error"),
            Severity::Warning => style.yellow("warning"),
            Severity::Info => style.dim("info"),
        };
        let line = remark.line.map_or(String::new(), |line| format!(":{line}"));
        let object =
            remark.object.as_ref().map_or(String::new(), |object| format!("{}: ", style.bold(object)));
        let path = if remark.path.is_empty() { String::new() } else { format!("{}: ", remark.path) };
        let code = style.dim(&format!("[{}]", remark.code));
        text += &format!("{}{line}: {severity}: {object}{path}{} {code}\n", remark.file, remark.text);
        if let Some(fix) = &remark.fix {
            text += &format!("    {fix}\n");
        }
    }
    if remarks.is_empty() {
        text += &format!("{} nothing is wrong in {files} files\n", style.tick());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let remarks = remarks(&files, "cluster.local");
        let text = text(&remarks, 2, Style::plain(false));
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
        let remarks = remarks(&[("a.yaml".to_owned(), gateway)], "cluster.local");
        assert_eq!(
            text(&remarks, 1, Style::plain(false)),
            "a.yaml:1: warning: Gateway default/g: objects of this kind (networking.istio.io/v1) are not applied yet: \
             it has no effect [not-read]\n"
        );
    }

    #[test]
    fn what_is_right_is_said_too() {
        let right = FILE.replace("web.shop]", "web]").replace("gone", "web");
        let remarks = remarks(&[("a.yaml".to_owned(), right)], "cluster.local");
        assert_eq!(text(&remarks, 1, Style::plain(false)), "ok nothing is wrong in 1 files\n");
    }

    #[test]
    fn directories_are_read_and_must_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let mut files = Vec::new();
        assert!(read(folder.path(), &mut files).is_err());
        std::fs::write(folder.path().join("b.yaml"), "").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        read(folder.path(), &mut files).unwrap();
        assert!(files.len() == 1 && files[0].0.ends_with("b.yaml"));
        assert!(read(&folder.path().join("none.yaml"), &mut files).is_err());
    }
}
