//! nginx from Debian in a pod: a real server, in the foreground, with a configuration and a prefix of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::lab::{Lab, Pod, Proc, poll_until};

/// A running nginx; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Proc,
    access_log: PathBuf,
}

/// Whether requests are written down; that costs time, so the bench doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    Kept,
    Off,
}

impl Nginx {
    /// Starts it on `port`, IPv4 and IPv6, and waits until it accepts.
    pub(crate) fn start(lab: &Lab, pod: &Pod, port: u16, log: AccessLog) -> Result<Self> {
        Self::start_on(lab, pod, port, None, log)
    }

    /// The same with HTTP/2 without TLS on another port, where `/mb` is 1 MB; it keeps no log.
    pub(crate) fn start_with_h2(lab: &Lab, pod: &Pod, port: u16, h2: u16) -> Result<Self> {
        Self::start_on(lab, pod, port, Some(h2), AccessLog::Off)
    }

    fn start_on(lab: &Lab, pod: &Pod, port: u16, h2: Option<u16>, log: AccessLog) -> Result<Self> {
        let prefix = lab.dir().join("nginx").join(pod.name());
        fs::create_dir_all(&prefix).with_context(|| format!("cannot make {}", prefix.display()))?;
        let access_log = prefix.join("access.log");
        let body = format!("{} on node {}", pod.name(), pod.node());
        fs::write(prefix.join("nginx.conf"), config(port, h2, &body, log))?;
        if h2.is_some() {
            fs::write(prefix.join("mb"), vec![b'm'; 1 << 20])?;
        }
        Ok(Self { process: pod.nginx(&prefix, port)?, access_log })
    }

    /// The path of its access log.
    pub(crate) fn access_log(&self) -> &Path {
        &self.access_log
    }

    /// Whether it is the process that was started.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }
}

impl Pod {
    /// Starts nginx with the `nginx.conf` of this prefix and waits until it accepts on `port`.
    pub fn nginx(&self, prefix: &Path, port: u16) -> Result<Proc> {
        let error_log = prefix.join("error.log");
        let command = self.command("nginx").arg("-p").arg(prefix).arg("-e").arg(&error_log);
        let mut process = command.args(["-c", "nginx.conf"]).spawn()?;
        let what = format!("nginx in {}", self.name());
        let accepts = || {
            let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            let up = self.place().netns().enter(connect).unwrap_or(false);
            (up || !process.is_running()).then_some(up)
        };
        if !poll_until(&what, Duration::from_secs(20), accepts)? {
            let why = fs::read_to_string(error_log).unwrap_or_default();
            bail!("{what} ended at its start: {why}");
        }
        Ok(process)
    }
}

fn config(port: u16, h2: Option<u16>, body: &str, log: AccessLog) -> String {
    let h2 = h2.map_or_else(String::new, |h2| {
        format!(
            "server {{\n\
             \x20   listen {h2} http2 backlog=4096;\n\
             \x20   listen [::]:{h2} http2 backlog=4096;\n\
             \x20   http2_max_concurrent_streams 128;\n\
             \x20   location / {{ default_type application/grpc; return 200 \"{body}\\n\"; }}\n\
             \x20   location = /mb {{ root .; default_type application/grpc; error_page 405 =200 $uri; }}\n\
             \x20 }}"
        )
    });
    let log = match log {
        AccessLog::Kept => "access_log access.log pod;",
        AccessLog::Off => "access_log off;",
    };
    // One process, so that it is ours to end; and no file but what is below the prefix.
    format!(
        "daemon off;\n\
         master_process off;\n\
         pid nginx.pid;\n\
         worker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
         \x20 log_format pod '$remote_addr:$remote_port \"$request\" $status';\n\
         \x20 {log}\n\
         \x20 tcp_nodelay on;\n\
         \x20 keepalive_requests 1000000000;\n\
         \x20 keepalive_timeout 600s;\n\
         \x20 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         \x20 uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         \x20 server {{\n\
         \x20   listen {port} backlog=4096;\n\
         \x20   listen [::]:{port} backlog=4096;\n\
         \x20   location / {{ default_type text/plain; return 200 \"{body}\\n\"; }}\n\
         \x20 }}\n\
         \x20 {h2}\n\
         }}\n"
    )
}
