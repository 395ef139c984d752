//! The system calls that aya does not offer. Nothing else in this crate's kernel layer is unsafe.

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};
use warren_common::abi::Endpoint;

const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `bpf(2)`.
///
/// # Safety
/// `attributes` must be laid out as `command` wants it, and what it points to must be valid for the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the caller's promise; the size is that of the attributes.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the pin part of `union bpf_attr`; `pathname` is a terminated string that outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: the kernel has just handed us this descriptor (it sets close-on-exec), nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Puts another program into an existing link, atomically (Linux 5.7). `ENOLINK`: what the link was attached to is
/// gone.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attributes = Attributes {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: `link_update` of `union bpf_attr`; it points to nothing.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Takes a link off what it is attached to, at once (Linux 5.9). Closing the last reference does so too, but later,
/// from a work queue.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
    }
    let mut attributes = Attributes { link_fd: link.as_raw_fd() as u32 };
    // SAFETY: `link_detach` of `union bpf_attr`; it points to nothing.
    unsafe { bpf(BPF_LINK_DETACH, &mut attributes) }.map(drop)
}

/// Whether what a cgroup or netns link was attached to still exists.
pub(super) fn link_is_alive(link: BorrowedFd<'_>) -> io::Result<bool> {
    /// `struct bpf_link_info` up to the target's id: a cgroup's in 64 bits, or a namespace's inode in 32.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        _pad: u32,
        target: [u32; 2],
    }
    #[repr(C)]
    struct Attributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    const BPF_LINK_TYPE_NETNS: u32 = 5;
    let mut info = Info::default();
    let mut attributes = Attributes {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<Info>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `info` of `union bpf_attr`; the kernel writes at most `info_len` bytes to `info`.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let second = if info.kind == BPF_LINK_TYPE_NETNS { 0 } else { info.target[1] };
    Ok(info.target[0] != 0 || second != 0)
}

/// Stores an endpoint on a socket in a socket storage map. Needs no exclusive access, unlike aya's.
pub(super) fn store_on_socket(
    map: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    value: &Endpoint,
) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map_fd: u32,
        _pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = socket.as_raw_fd();
    let mut attributes = Attributes {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: &raw const key as u64,
        value: &raw const *value as u64,
        flags: 0,
    };
    // SAFETY: the element part of `union bpf_attr`; the map's keys are descriptors and its values endpoints.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// The keys of a map with 64-bit keys, whatever its values are.
pub(super) fn map_keys(map: BorrowedFd<'_>) -> io::Result<Vec<u64>> {
    #[repr(C)]
    struct Attributes {
        map_fd: u32,
        _pad: u32,
        key: u64,
        next_key: u64,
    }
    let (mut keys, mut next) = (Vec::new(), 0_u64);
    loop {
        let current = keys.last().copied();
        let mut attributes = Attributes {
            map_fd: map.as_raw_fd() as u32,
            _pad: 0,
            key: current.as_ref().map_or(0, |key: &u64| &raw const *key as u64),
            next_key: &raw mut next as u64,
        };
        // SAFETY: the key part of `union bpf_attr`; both point to 64-bit integers (or nowhere: "the first").
        match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) } {
            Ok(_) => keys.push(next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

/// The file system magic of an existing path.
pub(super) fn fs_magic(path: &Path) -> io::Result<i64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid `statfs`.
    let mut info: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut info) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info.f_type as i64)
}

/// Mounts a BPF file system.
pub(super) fn mount_bpffs(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let bpf: &CStr = c"bpf";
    // SAFETY: three valid strings; bpffs takes no data.
    let answer = unsafe { libc::mount(bpf.as_ptr(), path.as_ptr(), bpf.as_ptr(), 0, std::ptr::null()) };
    if answer != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An integer socket option of `SOL_SOCKET`.
fn socket_option<T: Default>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes; called with integers only, for which any bits are valid.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if answer != 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Cookie of a socket's network namespace (Linux 5.14).
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    socket_option(socket, SO_NETNS_COOKIE)
}

/// Whether a socket listens.
pub(super) fn is_listening(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(socket_option::<libc::c_int>(socket, libc::SO_ACCEPTCONN)? == 1)
}

/// Waits until a descriptor is readable; `false` when the time is up.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid `pollfd`.
    match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
        0 => Ok(false),
        count if count > 0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether there is a process with this id.
pub(super) fn process_exists(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 is none; nothing is sent.
    pid > 0
        && (unsafe { libc::kill(pid, 0) } == 0
            || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH))
}

/// The running kernel's release, as `uname -r` prints it.
pub(super) fn kernel_release() -> String {
    // SAFETY: all zeroes is a valid `utsname`.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: a valid pointer; the kernel terminates the strings.
    let release = unsafe {
        libc::uname(&raw mut names);
        CStr::from_ptr(names.release.as_ptr())
    };
    release.to_string_lossy().into_owned()
}
