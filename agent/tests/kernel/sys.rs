//! Namespaces and the odd socket.

use std::{fs::File, io, net::SocketAddr, os::fd::AsRawFd, thread};

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A new network namespace, held by the file.
pub fn new_netns() -> File {
    let make = || {
        // SAFETY: takes no pointers; moves this thread only.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    thread::spawn(make).join().unwrap()
}

/// Moves the calling thread into a network namespace.
pub fn enter(netns: &File) {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).unwrap();
}

/// Runs something in a network namespace, on a thread of its own. Threads started there stay there.
pub fn within<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(netns);
            work()
        });
        thread.join().unwrap()
    })
}

/// A mount namespace of this process's own, with a BPF file system at `path`.
pub fn private_bpffs(path: &str) {
    let path = std::ffi::CString::new(path).unwrap();
    let null = std::ptr::null();
    // SAFETY: no pointers; the process has one thread yet.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).unwrap();
    // SAFETY: valid strings.
    check(unsafe { libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()) })
        .unwrap();
    // SAFETY: valid strings.
    check(unsafe { libc::mount(c"bpf".as_ptr(), path.as_ptr(), c"bpf".as_ptr(), 0, null.cast()) }).unwrap();
}

/// `connect(AF_UNSPEC)`: dissolves a socket's connection.
pub fn disconnect(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: all zeroes is a valid address, of family AF_UNSPEC.
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the address outlives the call.
    check(unsafe {
        libc::connect(socket.as_raw_fd(), &raw const address, size_of::<libc::sockaddr>() as u32)
    })
}

/// Ends a listener, also under threads that wait in `accept()`.
pub fn stop_listening(socket: &impl AsRawFd) {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) }).unwrap();
}

/// Takes root's privileges off the calling thread only.
pub fn become_nobody() {
    let nobody = 65534;
    // SAFETY: no pointers. The raw call, as libc's wrapper would change all threads.
    let answer = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
    assert_eq!(answer, 0);
}

/// Cookie of a socket's network namespace.
pub fn netns_cookie(socket: &impl AsRawFd) -> u64 {
    let (mut cookie, mut length) = (0_u64, 8);
    // SAFETY: SO_NETNS_COOKIE writes eight bytes.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, 71, (&raw mut cookie).cast(), &raw mut length)
    };
    check(answer).unwrap();
    cookie
}

/// v4-mapped addresses become IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
