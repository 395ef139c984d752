//! The demo is a promise to newcomers: it runs, it says what it shows, and nothing of it stays.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use warren_tests::lab;

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren-demo"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Says so past libtest's capture, so that `cargo xtask test` counts it.
fn skipped(name: &str) -> bool {
    let Some(reason) = lab::cannot_run() else {
        return false;
    };
    let _ =
        std::io::Write::write_all(&mut std::io::stdout(), format!("SKIPPED: {name}: {reason}\n").as_bytes());
    true
}

/// `w<id>` of "w<id>-client" in the demo's text.
fn lab_id(text: &str) -> Option<String> {
    let end = text.find("-client and so on")?;
    let start = text[..end].rfind([' ', '\n'])? + 2;
    Some(text[start..end].to_owned())
}

/// Everything of the lab that is still there.
fn remains(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = |dir: &Path, prefix: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path());
        found.extend(
            names
                .filter(|path| {
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
                })
                .map(|path| path.display().to_string()),
        );
    };
    names(Path::new("/run/netns"), &format!("w{id}-"));
    names(&std::env::temp_dir(), &format!("warren-{id}"));
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    }) {
        names(&mount, &format!("warren-{id}"));
    }
    let of_lab = |text: &str| text.contains(&format!("warren-{id}/")) || text.contains(&format!("/w{id}-"));
    found.extend(mounts.lines().filter(|line| of_lab(line)).map(str::to_owned));
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let cgroup = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        // The dead that init has not reaped yet hold nothing.
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let is_dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        if !is_dead && (of_lab(&command) || of_lab(&cgroup)) {
            found.push(format!("{}: {command} in {cgroup}", process.path().display()));
        }
    }
    found
}

#[test]
fn every_claim_holds_and_nothing_stays() -> Result<()> {
    if skipped("demo") {
        return Ok(());
    }
    let done = demo(&[]).output()?;
    let text = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{}\n{text}\n{errors}", done.status);
    for expected in [
        "1. The cluster",
        "both nodes answer",
        "which is what curl calls its own end",
        "nothing but port 15008",
        "began with a TLS 1.3 handshake",
        "the client's secret is in no packet",
        "the outsider's word is there for everyone to read",
        "both ends known by certificate",
        "marked plaintext and names no identity",
        "back in the mesh: tunnels again",
        "requests, 0 failed",
        "Done: ",
    ] {
        ensure!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "colours without a terminal");
    let id = lab_id(&text).context("the demo does not name its lab")?;
    ensure!(remains(&id).is_empty(), "{:#?}", remains(&id));
    Ok(())
}

/// Starts the demo, sends SIGINT when a line contains `moment`, and returns the lab's id.
fn interrupt_at(moment: &str) -> Result<String> {
    let mut child: Child = demo(&["--keep"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut text = String::new();
    for line in BufReader::new(output).lines() {
        text += &line?;
        text.push('\n');
        if text.contains(moment) {
            let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
            ensure!(sent.success(), "kill: {sent}");
            break;
        }
    }
    let status = child.wait()?;
    let mut errors = String::new();
    child.stderr.take().context("no errors")?.read_to_string(&mut errors)?;
    let id = lab_id(&text).with_context(|| format!("no lab named in:\n{text}\n{errors}"))?;
    ensure!(errors.contains("interrupted") && status.code() == Some(130), "{status}: {errors}");
    Ok(id)
}

#[test]
fn ctrl_c_leaves_nothing_behind() -> Result<()> {
    if skipped("demo") {
        return Ok(());
    }
    for moment in ["all is removed at the end", "3. What the server", "8. Out of the mesh", "Enter or Ctrl-C"]
    {
        let id = interrupt_at(moment).with_context(|| format!("interrupted at {moment:?}"))?;
        let left = remains(&id);
        ensure!(left.is_empty(), "interrupted at {moment:?}: {left:#?}");
    }
    Ok(())
}
