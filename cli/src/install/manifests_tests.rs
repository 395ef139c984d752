use super::*;
use crate::args::Cli;
use clap::CommandFactory;

fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap()
}

fn read(file: &str) -> Value {
    let path = format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn what_is_embedded_is_what_kustomize_applies() {
    let kustomization = read("kustomization.yaml");
    let files: Vec<_> = FILES.iter().map(|(name, _)| json!(name)).collect();
    assert_eq!(kustomization["resources"], json!(files));
    assert_eq!(kustomization["images"], json!([{"name": IMAGE, "newTag": env!("CARGO_PKG_VERSION")}]));
}

#[test]
fn every_setting_reaches_its_place() {
    let settings = Settings {
        image: "registry.example/warren:test".into(),
        pull_policy: Some("Never".into()),
        replicas: Some(3),
        controller_env: [("WARREN_TRUST_DOMAIN".into(), "example.org".into())].into(),
        agent_env: [("WARREN_DRAIN_DEADLINE".into(), "5s".into()), ("WARREN_LOG".into(), "debug".into())]
            .into(),
        cni_bin_dir: Some("/usr/lib/cni".into()),
        cni_conf_dir: Some("/etc/other/net.d".into()),
        ..Settings::new("mesh")
    };
    let objects = objects(&settings).unwrap();
    for object in &objects {
        assert!(!object.to_string().contains("null"), "{object}");
        let place = if object["kind"] == "Namespace" {
            &object["metadata"]["name"]
        } else {
            &object["metadata"]["namespace"]
        };
        assert!(place.is_null() || place == "mesh", "{object}");
        for subject in object["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["namespace"], "mesh");
        }
    }
    let (controller, agent) = (find(&objects, "Deployment"), find(&objects, "DaemonSet"));
    assert_eq!(controller["spec"]["replicas"], 3);
    let env = |object: &Value, name: &str| {
        let env = &object["spec"]["template"]["spec"]["containers"][0]["env"];
        let found: Vec<_> =
            env.as_array().unwrap().iter().filter(|variable| variable["name"] == name).collect();
        assert_eq!(found.len(), 1, "{name} in {env}");
        found[0]["value"].clone()
    };
    assert_eq!(env(controller, "WARREN_TRUST_DOMAIN"), "example.org");
    assert_eq!(env(agent, "WARREN_DRAIN_DEADLINE"), "5s");
    assert_eq!(env(agent, "WARREN_LOG"), "debug");
    for object in [controller, agent] {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example/warren:test");
        assert_eq!(container["imagePullPolicy"], "Never");
    }
    let paths = agent["spec"]["template"]["spec"]["volumes"].to_string();
    assert!(paths.contains("/usr/lib/cni") && paths.contains("/etc/other/net.d"), "{paths}");
}

#[test]
fn the_daemons_know_every_variable_that_the_manifests_set() {
    let objects = objects(&Settings::new(NAMESPACE)).unwrap();
    for (kind, command) in [("Deployment", "controller"), ("DaemonSet", "agent")] {
        let cli = Cli::command();
        let known: Vec<_> = cli
            .find_subcommand(command)
            .unwrap()
            .get_arguments()
            .filter_map(|argument| argument.get_env().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        let env = &find(&objects, kind)["spec"]["template"]["spec"]["containers"][0]["env"];
        for name in env.as_array().unwrap().iter().filter_map(|variable| variable["name"].as_str()) {
            assert!(
                !name.starts_with("WARREN_") || known.iter().any(|known| known == name),
                "{command}: {name}"
            );
        }
    }
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let objects = objects(&Settings::new(NAMESPACE)).unwrap();
    let again: Vec<Value> = serde_saphyr::from_multiple(&yaml(&objects).unwrap()).unwrap();
    assert_eq!(again, objects);
}

#[test]
fn everything_is_labelled_and_nothing_asks_for_more_than_it_says() {
    let objects = objects(&Settings::new(NAMESPACE)).unwrap();
    assert!(
        objects.iter().all(|object| object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "warren")
    );
    for kind in ["Deployment", "DaemonSet"] {
        let pod = &find(&objects, kind)["spec"]["template"]["spec"];
        let context = &pod["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["privileged"], false);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["hostNetwork"].is_null());
        assert!(!pod.to_string().contains("hostPort"));
    }
    let agent = &find(&objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(agent["automountServiceAccountToken"], false);
}
