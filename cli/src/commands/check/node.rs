//! What the node must offer before an agent can run on it.

use crate::render::check::Finding;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How long a port that is taken may take to say by whom.
const PATIENCE: Duration = Duration::from_secs(1);
/// Two descriptors a connection, two ends, and the agent's own.
const OPEN_FILES: u64 = 65_536;

/// Looks at the node whose files are below `root`.
pub(super) fn look(root: &Path) -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(root.join(path));
    vec![
        kernel(read("proc/sys/kernel/osrelease")),
        btf(root.join("sys/kernel/btf/vmlinux").exists()),
        cgroup2(read("proc/self/mounts")),
        bpffs(read("proc/self/mounts")),
        capabilities(read("proc/self/status")),
        open_files(read("proc/self/limits")),
    ]
}

fn kernel(release: io::Result<String>) -> Finding {
    let name = "kernel";
    let release = release.unwrap_or_default();
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 1) => Finding::good(name, release.trim()),
        (Some(Ok(_)), Some(Ok(_))) => {
            Finding::bad(name, format!("{} is older than 6.1", release.trim()), "upgrade the node's kernel")
        }
        _ => Finding::bad(name, format!("{:?} is no version", release.trim()), "is /proc mounted?"),
    }
}

fn btf(exists: bool) -> Finding {
    if exists {
        return Finding::good("BTF", "/sys/kernel/btf/vmlinux is there");
    }
    let todo = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of current distributions are)";
    Finding::bad("BTF", "/sys/kernel/btf/vmlinux is missing", todo)
}

/// Where a file system of `kind` is mounted.
fn mounts<'a>(table: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    table.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(1);
        let (place, found) = (fields.next()?, fields.next()?);
        (found == kind).then_some(place)
    })
}

fn cgroup2(table: io::Result<String>) -> Finding {
    let name = "cgroup v2";
    let table = table.unwrap_or_default();
    let places: Vec<_> = mounts(&table, "cgroup2").collect();
    match places.iter().find(|place| **place == "/sys/fs/cgroup").or(places.first()) {
        Some(&"/sys/fs/cgroup") => Finding::good(name, "at /sys/fs/cgroup"),
        Some(place) => Finding::good(name, format!("at {place} (hybrid: version 1 rules /sys/fs/cgroup)")),
        None => Finding::bad(
            name,
            "not mounted",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        ),
    }
}

fn bpffs(table: io::Result<String>) -> Finding {
    let table = table.unwrap_or_default();
    if mounts(&table, "bpf").any(|place| place == "/sys/fs/bpf") {
        return Finding::good("bpffs", "at /sys/fs/bpf");
    }
    Finding::bad("bpffs", "not mounted at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf")
}

fn capabilities(status: io::Result<String>) -> Finding {
    let name = "capabilities";
    let status = status.unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()) else {
        return Finding::bad(name, "not known", "is /proc mounted?");
    };
    let needed = [(21, "CAP_SYS_ADMIN"), (19, "CAP_SYS_PTRACE")];
    let missing: Vec<_> =
        needed.iter().filter(|(bit, _)| held >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Finding::good(name, "CAP_SYS_ADMIN and CAP_SYS_PTRACE are held");
    }
    let todo =
        "run this as root (sudo), or in the agent's container: what is checked is what this process may do";
    Finding::bad(name, format!("{} missing", missing.join(", ")), todo)
}

fn open_files(limits: io::Result<String>) -> Finding {
    let name = "open files";
    let limits = limits.unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().nth(1)) {
        Some("unlimited") => Finding::good(name, "no limit"),
        Some(text) => match text.parse::<u64>() {
            Ok(limit) if limit >= OPEN_FILES => Finding::good(name, format!("at most {limit}")),
            _ => Finding::warning(
                name,
                format!("at most {text}; a busy node needs {OPEN_FILES} or more"),
                "raise LimitNOFILE of the container runtime's service",
            ),
        },
        None => Finding::warning(name, "the limit is not known", "is /proc mounted?"),
    }
}

/// Each port must be free, or held by an agent.
pub(super) fn ports(ports: &[(&'static str, u16)]) -> Vec<Finding> {
    ports.iter().map(|(name, port)| self::port(name, *port)).collect()
}

fn port(name: &'static str, port: u16) -> Finding {
    // On a node without IPv6 the first attempt fails for another reason than the port.
    let free = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        result => result,
    };
    match free {
        Ok(_) => Finding::good(name, format!("{port} is free")),
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            Finding::warning(name, format!("{port} cannot be tried: {error}"), "try again as root")
        }
        Err(_) if held_by_warren(port) => Finding::good(name, format!("{port} is held by warren")),
        Err(_) => Finding::bad(
            name,
            format!("{port} is held by another program"),
            format!("ss -ltnp 'sport = :{port}' names it; stop it, or give the agent another address"),
        ),
    }
}

fn held_by_warren(port: u16) -> bool {
    let asks = [("/metrics", "istio_build{component=\"warren\""), ("/healthz/ready", "ready\n")];
    asks.iter().any(|(path, sign)| {
        let answer = ask(port, path).unwrap_or_default();
        answer.contains(sign) || (*path == "/healthz/ready" && answer.contains("\r\n\r\nwaiting for "))
    })
}

fn ask(port: u16, path: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(4 << 20).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
