//! Entering network namespaces, on a thread that does nothing else.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

/// An open network namespace. It lives as long as this handle, even if its last process ends.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    inode: u64,
}

impl Netns {
    /// Opens the namespace behind a path such as `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// When the path is gone or may not be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The namespace behind an open descriptor. Whether it is one shows when it is entered.
    ///
    /// # Errors
    /// When the descriptor cannot be examined.
    pub fn of(fd: OwnedFd) -> io::Result<Self> {
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Self { fd, inode })
    }

    /// The namespace's inode: two handles with the same inode are the same namespace.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that enters namespaces. Cloning shares it; it ends with its last handle.
#[derive(Clone, Debug)]
pub struct NetnsThread {
    jobs: mpsc::Sender<(Arc<Netns>, Job)>,
}

impl NetnsThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn spawn() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<(Arc<Netns>, Job)>();
        std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
            while let Ok((netns, job)) = queue.recv() {
                match move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)) {
                    Ok(()) => job(),
                    // The job is dropped unrun; its caller sees the closed channel.
                    Err(error) => tracing::error!(%error, netns = netns.inode(), "cannot enter a network namespace; is CAP_SYS_ADMIN missing?"),
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs `work` inside the namespace and returns what it returned.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the thread is gone.
    pub async fn run<T: Send + 'static>(
        &self,
        netns: &Arc<Netns>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.post(netns, move || {
            // A caller that gave up does not want the answer.
            let _ = reply.send(work());
        })?;
        answer.await.map_err(|_| not_entered())?
    }

    /// Runs `work` inside the namespace, some time soon.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn post(&self, netns: &Arc<Netns>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.jobs.send((Arc::clone(netns), Box::new(work))).map_err(|_| not_entered())
    }
}

fn not_entered() -> io::Error {
    io::Error::other("the network namespace could not be entered")
}

/// The cookie of the network namespace that a socket lives in (`SO_NETNS_COOKIE`, Linux 5.14).
///
/// # Errors
/// When the kernel is older.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `len` outlive the call and `len` is the size of `cookie`; rustix has no wrapper
    // for this option.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
