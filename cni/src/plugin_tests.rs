//! Whole invocations, to the letter: a container runtime reads them.

use super::*;
use crate::frame::{decode, encode};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;
use warren_common::model::cni::Answer;

const PREVIOUS: &str = r#"{"cniVersion": "1.0.0", "ips": [ {"address": "10.1.0.5/24"} ], "dns": {}}"#;

fn environment(command: &str) -> Environment {
    Environment {
        command: Some(command.to_owned()),
        container_id: Some("c1".to_owned()),
        netns: Some("/proc/self/ns/net".into()),
        interface: Some("eth0".to_owned()),
        args: Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u1".to_owned()),
    }
}

fn config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"{{"cniVersion":"1.0.0","name":"podnet","type":"warren-cni","socket":"{folder}/s","offline":"{folder}/f","prevResult":{PREVIOUS}}}"#
    )
}

/// An agent that answers once, and what it was asked.
fn agent(folder: &Path, answer: Answer) -> JoinHandle<Request> {
    let listener = UnixListener::bind(folder.join("s")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        let mut byte = [0];
        let request = loop {
            if let Some(request) = decode(&received).unwrap() {
                break request;
            }
            stream.read_exact(&mut byte).unwrap();
            received.extend(byte);
        };
        // In pieces, as a socket may bring it.
        for piece in encode(&answer).unwrap().chunks(3) {
            stream.write_all(piece).unwrap();
        }
        request
    })
}

fn run(command: &str, text: &str) -> (String, bool) {
    let Outcome { output, success } = invoke(&environment(command), Ok(text.to_owned()));
    (output, success)
}

#[test]
fn versions_and_status_are_to_the_letter() {
    assert_eq!(
        run("VERSION", r#"{"cniVersion":"1.1.0"}"#),
        (
            "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
                .to_owned(),
            true
        )
    );
    let folder = tempfile::tempdir().unwrap();
    // Without an agent, and nevertheless: the agent could not start otherwise.
    assert_eq!(run("STATUS", &config(folder.path())), (String::new(), true));
    assert_eq!(run("GC", &config(folder.path())), (String::new(), true));
    assert_eq!(
        run("STATUS", r#"{"cniVersion":"0.2.0","type":"warren-cni"}"#),
        (
            "{\"cniVersion\":\"1.1.0\",\"code\":1,\"msg\":\"warren: the configuration's cniVersion \\\"0.2.0\\\" is not \
             supported; supported are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\",\"details\":\"\"}\n"
                .to_owned(),
            false
        )
    );
}

#[test]
fn the_agent_is_asked_and_the_result_stays_to_the_letter() {
    let folder = tempfile::tempdir().unwrap();
    let asked = agent(folder.path(), Answer::Done);
    assert_eq!(run("ADD", &config(folder.path())), (format!("{PREVIOUS}\n"), true));
    let request = asked.join().unwrap();
    assert_eq!(request.pod, PodName { namespace: "shop".into(), name: "web".into(), uid: "u1".into() });
    assert_eq!(request.addresses, ["10.1.0.5".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!((request.command, request.container_id.as_str()), (Command::Add, "c1"));
}

#[test]
fn a_refusal_is_one_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let asked = agent(folder.path(), Answer::NotYet("its listeners are not open".to_owned()));
    let (output, success) = run("ADD", &config(folder.path()));
    asked.join().unwrap();
    assert!(!success);
    assert_eq!(
        output,
        "{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"warren: pod shop/web waits for the mesh: its listeners are not \
         open\",\"details\":\"the kubelet tries again by itself\"}\n"
    );
}

#[test]
fn an_end_is_never_refused() {
    let folder = tempfile::tempdir().unwrap();
    let asked = agent(folder.path(), Answer::NotYet("never mind".to_owned()));
    assert_eq!(run("DEL", &config(folder.path())), (String::new(), true));
    assert_eq!(asked.join().unwrap().command, Command::Del);
    for text in ["", "{", r#"{"cniVersion":"9"}"#, &config(folder.path())] {
        assert_eq!(run("DEL", text), (String::new(), true), "{text}");
    }
}

#[test]
fn what_is_not_for_the_mesh_is_let_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever it asks, nobody is there.
    std::fs::write(
        folder.path().join("f"),
        r#"{"enrolledNamespaces":["warren-system","x"],"failOpen":false}"#,
    )
    .unwrap();
    let with = |args: Option<&str>| {
        let environment = Environment { args: args.map(str::to_owned), ..environment("ADD") };
        invoke(&environment, Ok(config(folder.path()))).success
    };
    assert!(with(None) && with(Some("K8S_POD_NAMESPACE=warren-system;K8S_POD_NAME=warren-agent-x")));
    assert!(with(Some("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")));
}

#[test]
fn nobody_to_stand_behind_is_an_error_of_the_configuration() {
    let text = r#"{"cniVersion":"1.0.0","type":"warren-cni"}"#;
    let (output, success) = run("ADD", text);
    assert!(!success && output.contains("\"code\":7") && output.contains("no prevResult"), "{output}");
    let nameless = Environment { command: None, ..environment("ADD") };
    assert!(invoke(&nameless, Ok(String::new())).output.contains("\"code\":4"));
    let unread = invoke(&environment("ADD"), Err(io::ErrorKind::InvalidData.into()));
    assert!(unread.output.contains("\"code\":5"), "{}", unread.output);
}
