//! `warren analyze`: manifests that nobody has applied yet, or what a cluster holds, looked at as the controller would.

use crate::args::{ClusterArgs, Output};
use crate::client::{block_on, saying};
use crate::cluster::{Cluster, Objects, objects};
use crate::files::{Files, InFile};
use crate::offline::names;
use crate::render::{Style, clean};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_controller::index::{Index, RootNamespaces};
use warren_controller::objects::{Created, Key};
use warren_controller::resolve::findings::{Finding, Severity, analyze};
use warren_controller::source::Change;
use warren_controller::source::manifests::Unread;

#[derive(Args, Debug)]
pub(crate) struct AnalyzeArgs {
    /// File or directory with manifests, `-` for standard input; may be given more than once. What they refer to must be
    /// among them, or in the cluster with --cluster
    #[arg(short, long = "filename", required_unless_present = "cluster", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Look at what the cluster holds; with --filename at what would change if the files were applied there
    #[arg(long)]
    cluster: bool,
    /// Namespace of the objects in files that name none [default: with --cluster that of the kubeconfig's context, else
    /// default]; of a cluster without files, look at this namespace only
    #[arg(short, long, value_parser = crate::args::name)]
    namespace: Option<String>,
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
    let files = Files::read(&args.files);
    let (held, context) =
        args.cluster.then(|| block_on(of_cluster(&args.which))).transpose()?.transpose()?.unzip();
    let said = args.namespace.as_deref();
    let look = Look {
        domain: &args.cluster_domain,
        namespace: said.or(context.as_deref()).unwrap_or("default"),
        only: said.filter(|_| args.files.is_empty()),
    };
    let all_is_well = match (&held, args.files.len(), look.only) {
        (None, ..) => format!("nothing is wrong in {} files", files.texts.len()),
        (Some(_), 0, None) => "nothing is wrong with the routes and policies of the cluster".to_owned(),
        (Some(_), 0, Some(namespace)) => {
            format!("nothing is wrong with the routes and policies of the namespace {namespace}")
        }
        (Some(_), ..) => format!("applying {} files changes nothing for the worse", files.texts.len()),
    };
    let remarks = remarks(held, &files, &look);
    match args.output {
        Output::Json => super::print_json(&remarks)?,
        Output::Table => super::print(&text(&remarks, &all_is_well, Style::detect()))?,
    }
    let is_wrong = remarks.iter().any(|remark| remark.severity == Severity::Error);
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What it holds, and the namespace of the context.
async fn of_cluster(which: &ClusterArgs) -> Result<(Objects, String)> {
    let cluster = Cluster::connect(which).await?;
    Ok((saying("reading the cluster", objects(&cluster)).await?, cluster.namespace))
}

/// How it is looked at.
#[derive(Clone, Copy)]
struct Look<'a> {
    domain: &'a str,
    /// Where objects of files are that do not say it.
    namespace: &'a str,
    /// What a cluster holds elsewhere is left out.
    only: Option<&'a str>,
}

type Places<'a> = BTreeMap<Key, InFile<'a>>;
/// When the objects of a cluster were made.
type Ages = BTreeMap<Key, Created>;

/// What is to be said about what the cluster holds, or about the manifests, the worst first; of both, what applying them would
/// change. Pure.
fn remarks(held: Option<Objects>, files: &Files, look: &Look<'_>) -> Vec<Remark> {
    let mut index = Index::new(RootNamespaces::default(), look.domain.into());
    let (mut changes, others) = held.map(|held| (held.changes, (held.refused, held.unread))).unzip();
    let (refused, unread) = others.unzip();
    let mut ages = changes.is_some().then(Ages::new);
    for change in changes.iter_mut().flatten() {
        if let (Change::Upsert(object), Some(ages)) = (&mut *change, &mut ages) {
            let key = object.key();
            ages.extend(object.created_mut().map(|created| (key, *created)));
        }
        index.apply(change);
    }
    let is_looked_at = |object: &Key| look.only.is_none_or(|only| *object.name.namespace == *only);
    let no_files = files.texts.is_empty() && files.unreadable.is_empty();
    let mut remarks = Vec::new();
    if no_files {
        let invalid = refused.into_iter().flatten().filter(|it| is_looked_at(&it.object));
        remarks
            .extend(invalid.map(|it| invalid_at(String::new(), None, Some(it.object.to_string()), it.why)));
        let is_there = |of: &str| look.only.is_none_or(|only| of.contains(&format!(" {only}/")));
        let unread = unread.into_iter().flatten().filter(|unread| is_there(&unread.object));
        remarks.extend(unread.map(|unread| Remark {
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
    let before = match changes {
        Some(_) if !no_files => analyze(&index, &names(look.domain)),
        _ => Vec::new(),
    };
    let places = of_files(files, look, ages.as_ref(), &mut index, &mut remarks);
    let after = analyze(&index, &names(look.domain));
    let solved = before.iter().filter(|finding| !after.contains(finding)).cloned();
    let solved: Vec<_> = solved.map(|finding| remark(no_longer(finding), &places)).collect();
    let new = after.into_iter().filter(|finding| !before.contains(finding) && is_looked_at(&finding.object));
    remarks.extend(new.map(|finding| remark(finding, &places)));
    remarks.extend(solved);
    remarks.sort_by_key(|remark| remark.severity);
    remarks
}

/// What can be said about files alone; their objects are added to the index.
fn of_files<'a>(
    files: &'a Files,
    look: &Look<'_>,
    ages: Option<&Ages>,
    index: &mut Index,
    remarks: &mut Vec<Remark>,
) -> Places<'a> {
    let unreadable = files.unreadable.iter();
    remarks.extend(unreadable.map(|(file, why)| invalid_at(file.clone(), None, None, why.clone())));
    let found = files.objects(look.namespace);
    remarks.extend(found.unread.into_iter().map(|(file, unread)| not_read(file, unread)));
    remarks.extend(found.refused.into_iter().map(|(file, refused)| {
        invalid_at(file.to_owned(), Some(refused.error.line), refused.object, refused.error.reason)
    }));
    remarks.extend(found.repeated.into_iter().map(|again| Remark {
        text: again.to_string(),
        file: again.file,
        line: Some(again.line),
        severity: if again.alike { Severity::Info } else { Severity::Error },
        code: "duplicate-object",
        object: Some(again.object.to_string()),
        path: String::new(),
        fix: (!again.alike).then(|| "Remove one of them, or give it another name".to_owned()),
    }));
    let mut places = BTreeMap::new();
    for mut one in found.objects {
        let key = one.object.key();
        if let (Some(created), Some(ages)) = (one.object.created_mut(), ages) {
            // What is replaced keeps its age; what is new is younger than all that there is.
            *created = ages.get(&key).copied().unwrap_or(Some(i64::MAX));
        }
        index.apply(&Change::Upsert(one.object.clone()));
        places.insert(key, one);
    }
    places
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

/// With the line of the field, where it has one.
fn remark(finding: Finding, places: &Places<'_>) -> Remark {
    let place = places.get(&finding.object);
    let Finding { severity, code, object, path, text, fix } = finding;
    Remark {
        file: place.map(|place| place.file.to_owned()).unwrap_or_default(),
        line: place.map(|place| place.places.line(&path)),
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
        let place = match (&*clean(&remark.file), remark.line) {
            ("", _) => String::new(),
            (file, None) => format!("{file}: "),
            (file, Some(line)) => format!("{file}:{line}: "),
        };
        let object = remark
            .object
            .as_ref()
            .map_or(String::new(), |object| format!("{}: ", style.bold(&clean(object))));
        let path = if remark.path.is_empty() { String::new() } else { format!("{}: ", clean(&remark.path)) };
        let code = style.dim(&format!("[{}]", remark.code));
        text += &format!("{place}{severity}: {object}{path}{} {code}\n", clean(&remark.text));
        if let Some(fix) = &remark.fix {
            text += &format!("    {}\n", clean(fix));
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
    use warren_controller::source::manifests::parse;

    const LOOK: Look<'_> = Look { domain: "cluster.local", namespace: "default", only: None };

    fn files(texts: &[(&str, &str)]) -> Files {
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Files { texts: texts.collect(), unreadable: vec![] }
    }

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
        let remarks = remarks(None, &files(&[("a.yaml", FILE), ("b.yaml", "kind: [")]), &LOOK);
        let text = text(&remarks, "well", Style::plain(false));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("b.yaml:1: error: "), "{text}");
        assert!(lines[0].ends_with("[invalid]"), "{text}");
        assert_eq!(
            lines[1..],
            [
                "a.yaml:11: error: VirtualService shop/web: spec.http[0].route[0].destination: gone.shop.svc.cluster.local: \
                 no service that shop knows has this name; requests get 503 [destination-not-found]",
                "a.yaml:10: warning: VirtualService shop/web: spec.hosts[0]: no service has the name web.shop: nothing in \
                 the mesh follows these rules [host-not-found]",
                "    A name with a dot stands as it is: write web.shop.svc.cluster.local",
            ]
        );
    }

    #[test]
    fn what_is_not_read_is_said() {
        let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\n";
        let remarks = remarks(None, &files(&[("a.yaml", gateway)]), &LOOK);
        assert_eq!(
            text(&remarks, "well", Style::plain(false)),
            "a.yaml:1: warning: Gateway default/g: objects of this kind (networking.istio.io/v1) are not applied yet: \
             it has no effect [not-read]\n"
        );
        let mistaken = "apiVersion: networking.istio/v1\nkind: VirtualService\nmetadata: {name: v}\n";
        let remarks = super::remarks(None, &files(&[("a.yaml", mistaken)]), &LOOK);
        assert!(remarks[0].severity == Severity::Error && remarks[0].code == "no-such-kind", "{remarks:?}");
    }

    #[test]
    fn what_is_right_is_said_too() {
        let right = FILE.replace("web.shop]", "web]").replace("gone", "web");
        let remarks = remarks(None, &files(&[("a.yaml", &right)]), &LOOK);
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
        let elsewhere = remarks(Some(held(FILE)), &files(&[]), &Look { only: Some("bank"), ..LOOK });
        assert_eq!(elsewhere, []);
        let here = remarks(Some(held(FILE)), &files(&[]), &Look { only: Some("shop"), ..LOOK });
        assert_eq!(here.len(), 2);
        let remarks = remarks(Some(bad), &files(&[]), &LOOK);
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
        let file = |text: &str| files(&[("a.yaml", text)]);
        let none = remarks(Some(held(&right)), &file(&right), &LOOK);
        assert_eq!(none, []);
        // Old trouble is none of theirs; a service that is not in the files is in the cluster.
        let route = |host: &str| {
            format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: more, namespace: shop}}
spec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: web}}}}]}}]}}\n")
        };
        assert_eq!(remarks(Some(held(FILE)), &file(&route("web")), &LOOK), []);
        let new = remarks(Some(held(FILE)), &file(&route("nobody")), &LOOK);
        assert!(new.len() == 1 && new[0].code == "host-not-found" && new[0].line == Some(4), "{new:?}");
        // What is applied is younger than what is there, whatever their names are.
        let service = right.split("---").next().unwrap();
        let aged = route("web").replace("name: more", "name: z, creationTimestamp: '2026-01-01T00:00:00Z'");
        let there = held(&format!("{service}---\n{aged}"));
        let second = remarks(Some(there), &file(&route("web")), &LOOK);
        assert!(second.len() == 1 && second[0].code == "host-conflict", "{second:?}");
        assert_eq!(second[0].object.as_deref(), Some("VirtualService shop/more"));
        let better = remarks(Some(held(FILE)), &file(&right), &LOOK);
        assert!(better.iter().all(|remark| remark.severity == Severity::Info), "{better:?}");
        assert!(better.len() == 2 && better[0].text.starts_with("no longer: "), "{better:?}");
    }

    #[test]
    fn one_bad_object_hides_nothing_of_the_others() {
        let bad = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: odd, namespace: shop}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: SOMEHOW}
---
";
        let right = FILE.replace("web.shop]", "web]").replace("gone", "web");
        let files = Files {
            unreadable: vec![("c.yaml".to_owned(), "it can't be read: x".to_owned())],
            ..files(&[("a.yaml", &format!("{bad}{right}"))])
        };
        let remarks = remarks(None, &files, &LOOK);
        let text = text(&remarks, "well", Style::plain(false));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "c.yaml: error: it can't be read: x [invalid]");
        let begins = "a.yaml:7: error: DestinationRule shop/odd: spec.trafficPolicy.loadBalancer.simple: ";
        assert!(lines[1].starts_with(begins) && lines.len() == 2, "{text}");
    }

    #[test]
    fn objects_that_overwrite_each_other_are_an_error() {
        let right = FILE.replace("web.shop]", "web]").replace("gone", "web");
        let other = right.replace("[{route", "[{timeout: 5s, route");
        let remarks = remarks(None, &files(&[("d1/v.yaml", &right), ("d2/v.yaml", &other)]), &LOOK);
        let text = text(&remarks, "well", Style::plain(false));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "d2/v.yaml:6: error: VirtualService shop/web: it is also defined at d1/v.yaml:6, and differs: only one of them \
                 can be in force [duplicate-object]",
                "    Remove one of them, or give it another name",
                "d2/v.yaml:1: info: Service shop/web: it is also defined at d1/v.yaml:1, alike [duplicate-object]",
            ]
        );
    }

    #[test]
    fn objects_without_a_namespace_are_in_the_one_that_is_said() {
        let bare = FILE.replace(", namespace: shop", "").replace("web.shop]", "web]").replace("gone", "web");
        let look = Look { namespace: "shop", ..LOOK };
        assert_eq!(remarks(Some(held(FILE)), &files(&[("a.yaml", &bare)]), &look).len(), 2);
        let alone = remarks(None, &files(&[("a.yaml", &bare.replace("host: web", "host: gone"))]), &look);
        assert_eq!(alone[0].object.as_deref(), Some("VirtualService shop/web"));
        assert!(alone[0].text.starts_with("gone.shop.svc"), "{alone:?}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let odd = FILE.replace("gone", "\"go\\e[2Jne\"").replace("web.shop]", "\"we\\eb\"]");
        let remarks = remarks(None, &files(&[("a\u{1b}.yaml", &odd), ("b.yaml", "kind: [")]), &LOOK);
        assert!(remarks.len() > 1);
        let text = text(&remarks, "well", Style::plain(false));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
