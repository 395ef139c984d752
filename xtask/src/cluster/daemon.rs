//! Programs that outlive the command that started them, and the records by which a later command finds them.
//!
//! A record is the program's line of /proc/PID/stat at its start: the process id and, since ids are used again, the
//! time at which the process began.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::wait::until;

/// Becomes the program after leaving the record, so that there is none without one.
const RECORDED: &str = r#"cat /proc/$$/stat > "$0" && exec "$@""#;

/// Starts `command` as the daemon `name`.
pub(crate) fn start(layout: &Layout, name: &str, command: &Command) -> Result<()> {
    let log = layout.log(name);
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let record = layout.record(name);
    let mut words: Vec<OsString> = vec!["-c".into(), RECORDED.into(), record.clone().into()];
    words.push(command.get_program().to_owned());
    words.extend(command.get_args().map(ToOwned::to_owned));
    Command::new("sh")
        .args(words)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        // Ctrl-C in our terminal is not meant for it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    until(&format!("{name} to start"), Duration::from_secs(5), || {
        pid(&record).map(|_| ()).with_context(|| format!("see {}", log.display()))
    })
}

/// The process of a record, if it still runs.
pub(crate) fn pid(record: &Path) -> Option<u32> {
    let then = Stat::parse(&fs::read_to_string(record).ok()?)?;
    let now = Stat::parse(&fs::read_to_string(format!("/proc/{}/stat", then.pid)).ok()?)?;
    (now.began == then.began && now.state != 'Z').then_some(then.pid)
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    state: char,
    /// Clock ticks since boot.
    began: u64,
}

impl Stat {
    /// Reads a line of /proc/PID/stat (proc_pid_stat(5)); the name in it may contain anything, even `)`.
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(' ')?;
        let (_, rest) = rest.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Self { pid: pid.parse().ok()?, state, began: fields.nth(18)?.parse().ok()? })
    }
}

/// Ends the daemon of a record: asks, then forces. One that has ended already is fine.
pub(crate) fn end(record: &Path, patience: Duration) -> Result<()> {
    for (signal, limit) in [("-TERM", patience), ("-KILL", Duration::from_secs(10))] {
        let Some(pid) = pid(record) else { break };
        // It may end between the question and the signal: then `kill` complains, and all is well.
        let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
        let gone = until("its end", limit, || match self::pid(record) {
            Some(_) => bail!("process {pid} still runs"),
            None => Ok(()),
        });
        if signal == "-KILL" {
            gone?;
        }
    }
    match fs::remove_file(record) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove a record")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "42 (a) b (c) S 1 42 42 0 -1 4194304 9 0 0 0 1 2 0 0 20 0 1 0 777 5 6 7";

    #[test]
    fn a_record_is_read_whatever_the_program_is_called() {
        assert_eq!(Stat::parse(LINE), Some(Stat { pid: 42, state: 'S', began: 777 }));
        assert_eq!(Stat::parse("42 (x) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_process_id_that_was_used_again_is_nobody() {
        let own = fs::read_to_string("/proc/self/stat").expect("proc");
        let dir = std::env::temp_dir().join(format!("xtask-daemon-{}", std::process::id()));
        fs::write(&dir, &own).expect("writes");
        assert_eq!(pid(&dir), Some(std::process::id()));
        let began = Stat::parse(&own).expect("parses").began;
        fs::write(&dir, own.replace(&format!(" {began} "), " 1 ")).expect("writes");
        assert_eq!(pid(&dir), None);
        fs::remove_file(&dir).expect("removes");
    }
}
