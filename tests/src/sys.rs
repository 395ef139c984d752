//! The system calls that std lacks. Everything unsafe of this crate is here, each with its reason.
#![allow(unsafe_code, reason = "namespaces, mounts, sessions and epoll have no safe wrapper in std")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Error, PipeReader};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and can't fail.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread into a new network namespace.
pub(crate) fn unshare_netns() -> io::Result<()> {
    // SAFETY: no pointers; CLONE_NEWNET concerns the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into the network namespace `netns`.
pub(crate) fn enter_netns(netns: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// mount(2) without data.
pub(crate) fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let source = c_path(source)?;
    let target = c_path(target)?;
    let kind = CString::new(kind)?;
    // SAFETY: the strings outlive the call; a null `data` is allowed.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) })
        .map(drop)
}

/// Takes a mount out of sight now; the kernel frees it when its last user is gone.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the string outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Sends `signal` to one process.
pub(crate) fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Blocks until a signal ends the process.
pub(crate) fn pause() {
    // SAFETY: no arguments.
    unsafe { libc::pause() };
}

/// Makes the calling process ignore what a terminal or a shell sends to end its jobs.
pub(crate) fn ignore_job_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

static END_ASKED: AtomicBool = AtomicBool::new(false);
static END_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note_end_signal(_: libc::c_int) {
    END_ASKED.store(true, Ordering::SeqCst);
    let pipe: RawFd = END_PIPE.load(Ordering::SeqCst);
    // SAFETY: write is async-signal-safe; the string is static and the descriptor is never closed.
    unsafe { libc::write(pipe, c"!".as_ptr().cast(), 1) };
}

/// From now on Ctrl-C, SIGTERM and SIGHUP don't end this process (its children they do): each is a byte to read here.
pub(crate) fn catch_end_signals() -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    END_PIPE.store(writer.into_raw_fd(), Ordering::SeqCst);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = note_end_signal as extern "C" fn(libc::c_int);
        // SAFETY: the handler does nothing but an atomic store and a write, and lives as long as the program.
        if unsafe { libc::signal(signal, handler as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(Error::last_os_error());
        }
    }
    Ok(reader)
}

/// Whether one of the signals of [`catch_end_signals`] has come.
pub(crate) fn end_was_asked() -> bool {
    END_ASKED.load(Ordering::SeqCst)
}

/// The command starts in a session of its own, out of reach of the terminal's Ctrl-C.
pub(crate) fn own_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and the only thing done between fork and exec.
    unsafe { command.pre_exec(|| check(libc::setsid()).map(drop)) };
}

/// Where a command starts.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) netns: Arc<File>,
    /// An open `cgroup.procs`, or the caller's own cgroup.
    pub(crate) cgroup: Option<Arc<File>>,
    /// A file to see as /etc/hosts, in a mount namespace of the command's own.
    pub(crate) hosts: Option<CString>,
}

/// The command starts in `setting`: cgroup first, so that whatever goes wrong later is cleaned up with it.
pub(crate) fn start_in(command: &mut Command, setting: Setting) {
    let root = c"/";
    let etc_hosts = c"/etc/hosts";
    let enter = move || {
        if let Some(cgroup) = &setting.cgroup {
            // SAFETY: writes one byte from a static string; "0" means the writer.
            check(unsafe { libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) } as libc::c_int)?;
        }
        // SAFETY: the closure owns the descriptor; the child of fork has one thread.
        check(unsafe { libc::setns(setting.netns.as_raw_fd(), libc::CLONE_NEWNET) })?;
        if let Some(hosts) = &setting.hosts {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let null = std::ptr::null();
            // SAFETY: all strings are owned by the closure or static; null types and data are allowed here.
            unsafe {
                check(libc::unshare(libc::CLONE_NEWNS))?;
                check(libc::mount(root.as_ptr(), root.as_ptr(), null, private, null.cast()))?;
                check(libc::mount(hosts.as_ptr(), etc_hosts.as_ptr(), null, libc::MS_BIND, null.cast()))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: no allocation, no locks, nothing that fork may have broken.
    unsafe { command.pre_exec(enter) };
}

/// Waits until `fd` is ready for `events` (POLLIN, POLLOUT); false when the time is over.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: libc::c_short, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid pollfd, and the count says so.
    check(unsafe { libc::poll(&raw mut entry, 1, millis) }).map(|ready| ready > 0)
}

/// Dissolves a socket's connection, so that the socket can be connected again (connect(2), "AF_UNSPEC").
pub(crate) fn dissolve(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is open and the address valid for the call, with its true size.
    check(unsafe { libc::connect(fd.as_raw_fd(), &raw const nowhere, size) }).map(drop)
}

/// An epoll instance that watches one descriptor, edge triggered, as Go's and tokio's runtimes do.
#[derive(Debug)]
pub(crate) struct EdgePoll(OwnedFd);

impl EdgePoll {
    pub(crate) fn watch(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the new descriptor is ours; OwnedFd closes it.
        let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        // SAFETY: both descriptors are open, the event is valid for the call.
        check(unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        })?;
        Ok(Self(epoll))
    }

    /// Waits for an edge; the events seen, none when the time is over.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<Option<u32>> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: room for one event, and the count says so.
        let count = check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, millis) })?;
        Ok((count > 0).then_some(event.events))
    }
}
