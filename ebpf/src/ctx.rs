//! Typed access to the programs' contexts. All reads and writes are volatile: LLVM would merge neighbouring
//! 32-bit fields into one 64-bit access, which the verifier refuses.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::bpf_get_netns_cookie,
    programs::{SockAddrContext, SockOpsContext},
};
use warren_common::abi::{Connection, Endpoint, Ip};

/// `AF_INET`.
pub(crate) const AF_INET: u32 = 2;
/// `AF_INET6`.
pub(crate) const AF_INET6: u32 = 10;
/// `IPPROTO_TCP`.
pub(crate) const TCP: u32 = 6;
/// `IPPROTO_MPTCP`: the protocol of the socket that the application holds; its subflows are [`TCP`].
pub(crate) const MPTCP: u32 = 262;
const SOCK_STREAM: u32 = 1;

/// Reads a context field once, with its own width.
///
/// # Safety
/// `field` points into a context or socket that the verifier knows.
#[inline(always)]
pub(crate) unsafe fn read<T>(field: *const T) -> T {
    // SAFETY: the caller's promise; the verifier checks offset and width.
    unsafe { core::ptr::read_volatile(field) }
}

/// Reads an IPv6 address field word by word.
///
/// # Safety
/// As for [`read`].
#[inline(always)]
pub(crate) unsafe fn read_ip6(field: *const [u32; 4]) -> Ip {
    let words = field.cast::<u32>();
    // SAFETY: the caller's promise; four words stand there.
    unsafe { Ip { words: [read(words), read(words.add(1)), read(words.add(2)), read(words.add(3))] } }
}

/// Both of a context's or socket's address fields, read whatever the family is: a branch around the reads would
/// let LLVM merge their tails into an access at a computed offset, which the verifier refuses.
///
/// # Safety
/// As for [`read`].
#[inline(always)]
pub(crate) unsafe fn read_ip(family: u32, ip4: *const u32, ip6: *const [u32; 4]) -> Ip {
    // SAFETY: the caller's promise.
    let (v4, v6) = unsafe { (read(ip4), read_ip6(ip6)) };
    // The v4 field of a pure v6 socket is meaningless, and the v6 field of a v4 socket unspecified.
    if family == AF_INET6 { v6 } else { Ip::v4(v4) }
}

/// The context of the cgroup address hooks; `V6` says which of the two families' fields the program may touch.
pub(crate) struct SockAddr<'a, const V6: bool> {
    context: &'a SockAddrContext,
}

impl<'a, const V6: bool> SockAddr<'a, V6> {
    #[inline(always)]
    pub(crate) fn new(context: &'a SockAddrContext) -> Self {
        Self { context }
    }

    #[inline(always)]
    pub(crate) fn context(&self) -> &'a SockAddrContext {
        self.context
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }

    /// Whether the socket is TCP. MPTCP's first subflow reaches the hooks as TCP, its parent as MPTCP.
    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        let raw = self.raw();
        // SAFETY: `raw` is the hook's context.
        let (kind, protocol) = unsafe { (read(&raw const (*raw).type_), read(&raw const (*raw).protocol)) };
        kind == SOCK_STREAM && (protocol == TCP || protocol == MPTCP)
    }

    /// Whether this is the user-visible socket of an MPTCP connection.
    #[inline(always)]
    pub(crate) fn is_mptcp_parent(&self) -> bool {
        // SAFETY: the hook's context.
        unsafe { read(&raw const (*self.raw()).protocol) == MPTCP }
    }

    /// The address and port in question: the destination in connect hooks, the answer in name hooks.
    #[inline(always)]
    pub(crate) fn endpoint(&self) -> Endpoint {
        let raw = self.raw();
        // SAFETY: the hook's context; the program touches only its own family's fields.
        unsafe {
            let ip = if V6 {
                read_ip6(&raw const (*raw).user_ip6)
            } else {
                Ip::v4(read(&raw const (*raw).user_ip4))
            };
            // The field is 32 bits wide and holds the 16-bit network order port in its first two bytes.
            let port = u32::from(u16::from_be(read(&raw const (*raw).user_port) as u16));
            Endpoint { ip, port, family: if V6 { AF_INET6 } else { AF_INET } }
        }
    }

    /// Replaces the address.
    #[inline(always)]
    pub(crate) fn set_ip(&self, ip: &Ip) {
        let raw = self.raw();
        // SAFETY: the hook's context; the verifier allows word-wise writes to these fields.
        unsafe {
            if V6 {
                let words = (&raw mut (*raw).user_ip6).cast::<u32>();
                core::ptr::write_volatile(words, ip.words[0]);
                core::ptr::write_volatile(words.add(1), ip.words[1]);
                core::ptr::write_volatile(words.add(2), ip.words[2]);
                core::ptr::write_volatile(words.add(3), ip.words[3]);
            } else {
                core::ptr::write_volatile(&raw mut (*raw).user_ip4, ip.words[3]);
            }
        }
    }

    /// Replaces the port (host byte order).
    #[inline(always)]
    pub(crate) fn set_port(&self, port: u32) {
        // SAFETY: the hook's context.
        unsafe {
            core::ptr::write_volatile(&raw mut (*self.raw()).user_port, u32::from((port as u16).to_be()))
        };
    }

    /// The socket, never null in these hooks.
    #[inline(always)]
    pub(crate) fn socket(&self) -> *mut bpf_sock {
        // SAFETY: the hook's context.
        unsafe { read(&raw const (*self.raw()).__bindgen_anon_1.sk) }
    }

    /// Cookie of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: the hook's context (helper since 5.7 here).
        unsafe { bpf_get_netns_cookie(self.context.as_ptr()) }
    }

    /// The connection as this socket sees it, from the socket's own fields.
    #[inline(always)]
    pub(crate) fn connection(&self) -> Connection {
        let sk = self.socket();
        // SAFETY: `sk` is the hook's socket; these fields are readable for any protocol.
        unsafe {
            let family = read(&raw const (*sk).family);
            Connection {
                cookie: self.cookie(),
                local: read_ip(family, &raw const (*sk).src_ip4, &raw const (*sk).src_ip6),
                remote: read_ip(family, &raw const (*sk).dst_ip4, &raw const (*sk).dst_ip6),
                local_port: read(&raw const (*sk).src_port),
                remote_port: u32::from(u16::from_be(read(&raw const (*sk).dst_port))),
            }
        }
    }
}

/// The context of a sockops program.
pub(crate) struct SockOps<'a> {
    context: &'a SockOpsContext,
}

impl<'a> SockOps<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a SockOpsContext) -> Self {
        Self { context }
    }

    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_ops {
        self.context.ops
    }

    /// Which callback this is (`BPF_SOCK_OPS_*`).
    #[inline(always)]
    pub(crate) fn op(&self) -> u32 {
        // SAFETY: the program's context.
        unsafe { read(&raw const (*self.raw()).op) }
    }

    /// The second argument of the callback: the new state in a state callback.
    #[inline(always)]
    pub(crate) fn new_state(&self) -> u32 {
        // SAFETY: the program's context.
        unsafe { read((&raw const (*self.raw()).__bindgen_anon_1.args).cast::<u32>().add(1)) }
    }

    /// The socket; `None` for a connection that is only a request so far.
    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: the program's context.
        let sk = unsafe { read(&raw const (*self.raw()).__bindgen_anon_2.sk) };
        if sk.is_null() { None } else { Some(sk) }
    }

    /// Asks for state callbacks of this socket, keeping what other programs asked for.
    #[inline(always)]
    pub(crate) fn watch_states(&self, flag: u32) {
        // SAFETY: the program's context.
        let flags = unsafe { read(&raw const (*self.raw()).bpf_sock_ops_cb_flags) };
        let _ = self.context.set_cb_flags((flags | flag) as i32);
    }

    /// Local port, host byte order.
    #[inline(always)]
    pub(crate) fn local_port(&self) -> u32 {
        // SAFETY: the program's context.
        unsafe { read(&raw const (*self.raw()).local_port) }
    }

    /// The connection as this socket sees it. A v4-mapped socket gives the same key as a v4 socket.
    #[inline(always)]
    pub(crate) fn connection(&self) -> Connection {
        let raw = self.raw();
        // SAFETY: the program's context (bpf_get_netns_cookie in sockops since 5.15).
        unsafe {
            let family = read(&raw const (*raw).family);
            Connection {
                cookie: bpf_get_netns_cookie(self.context.as_ptr()),
                local: read_ip(family, &raw const (*raw).local_ip4, &raw const (*raw).local_ip6),
                remote: read_ip(family, &raw const (*raw).remote_ip4, &raw const (*raw).remote_ip6),
                local_port: self.local_port(),
                // Network order in a 32-bit field.
                remote_port: u32::from_be(read(&raw const (*raw).remote_port)),
            }
        }
    }

    /// The connection as the other end sees it.
    #[inline(always)]
    pub(crate) fn connection_of_peer(&self) -> Connection {
        let own = self.connection();
        Connection {
            cookie: own.cookie,
            local: own.remote,
            remote: own.local,
            local_port: own.remote_port,
            remote_port: own.local_port,
        }
    }
}
