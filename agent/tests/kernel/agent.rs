//! A small agent: listeners in a pod's network namespace, original destinations, true clients, bytes.

use super::sys;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex, RwLock},
    thread,
};
use warren_agent::kernel::{BpfKernel, Kernel, KernelError, PodCapture};
use warren_common::ports;

/// To these ports the agent answers itself.
const ANSWERED: std::ops::Range<u16> = 7000..8000;

/// The kernel layer that is current; tests swap it.
pub type Current = Arc<RwLock<Option<Arc<BpfKernel>>>>;

/// Where the agent's own outgoing connections came from, oldest first: what servers must see.
pub type Dialled = Arc<Mutex<VecDeque<SocketAddr>>>;

/// The agent's listeners of one pod.
pub struct PodListeners {
    outbound: Vec<Arc<TcpListener>>,
    inbound: Vec<Arc<TcpListener>>,
    pub cookie: u64,
}

/// What to enrol a pod with.
#[derive(Clone, Default)]
pub struct Exclusions {
    pub outbound_ports: Vec<u16>,
    pub inbound_ports: Vec<u16>,
    pub cidrs: Vec<(IpAddr, u8)>,
}

impl PodListeners {
    /// Listens and serves in the pod's namespace.
    pub fn open(netns: &File, current: &Current, dialled: &Dialled) -> Self {
        sys::within(netns, || {
            let listen = |port| ["127.0.0.1", "::1"].map(|ip| Arc::new(listen(ip, port)));
            let (outbound, inbound) = (listen(ports::OUTBOUND), listen(ports::INBOUND_PLAINTEXT));
            for listener in &outbound {
                serve(listener, current, dialled, outgoing);
            }
            for listener in &inbound {
                serve(listener, current, dialled, incoming);
            }
            let cookie = sys::netns_cookie(&*outbound[0]);
            Self { outbound: outbound.into(), inbound: inbound.into(), cookie }
        })
    }

    pub fn enrol(
        &self,
        kernel: &impl Kernel,
        netns: &File,
        addresses: &[IpAddr],
        exclusions: &Exclusions,
    ) -> Result<(), KernelError> {
        kernel.enrol(&PodCapture {
            cookie: self.cookie,
            netns: netns.as_fd(),
            addresses,
            inbound_v4: Some(self.inbound[0].as_fd()),
            inbound_v6: Some(self.inbound[1].as_fd()),
            exclude_outbound_ports: &exclusions.outbound_ports,
            exclude_inbound_ports: &exclusions.inbound_ports,
            exclude_outbound_cidrs: &exclusions.cidrs,
        })
    }

    /// The inbound listener for IPv4.
    pub fn inbound_v4(&self) -> BorrowedFd<'_> {
        self.inbound[0].as_fd()
    }
}

impl Drop for PodListeners {
    fn drop(&mut self) {
        for listener in self.outbound.iter().chain(&self.inbound) {
            sys::stop_listening(&**listener);
        }
    }
}

fn listen(ip: &str, port: u16) -> TcpListener {
    let address = SocketAddr::new(ip.parse().unwrap(), port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap_or_else(|error| panic!("binding {address}: {error}"));
    socket.listen(4096).unwrap();
    socket.into()
}

type Handler = fn(TcpStream, &BpfKernel, &Dialled) -> io::Result<()>;

/// Accepts until the listener is stopped.
fn serve(listener: &Arc<TcpListener>, current: &Current, dialled: &Dialled, handle: Handler) {
    let (listener, current, dialled) = (Arc::clone(listener), Arc::clone(current), Arc::clone(dialled));
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let Some(kernel) = current.read().unwrap().clone() else {
                continue;
            };
            let _ = handle(stream, &kernel, &dialled);
        }
    });
}

/// From an application of the pod.
fn outgoing(mut stream: TcpStream, kernel: &BpfKernel, dialled: &Dialled) -> io::Result<()> {
    let Some(destination) = kernel.original_destination(stream.as_fd()).unwrap() else {
        return writeln!(stream, "agent uncaptured");
    };
    if ANSWERED.contains(&destination.port()) {
        return writeln!(stream, "agent destination={destination}");
    }
    let upstream = TcpStream::connect(destination)?;
    dialled.lock().unwrap().push_back(upstream.local_addr()?);
    copy_both(stream, upstream);
    Ok(())
}

/// To an application of the pod: on behalf of the client, whom the application is shown.
fn incoming(stream: TcpStream, kernel: &BpfKernel, _dialled: &Dialled) -> io::Result<()> {
    let (client, destination) = (sys::canonical(stream.peer_addr()?), sys::canonical(stream.local_addr()?));
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM, Some(Protocol::TCP))?;
    kernel.present_client(socket.as_fd(), client).unwrap();
    socket.connect(&destination.into())?;
    copy_both(stream, socket.into());
    Ok(())
}

fn copy_both(a: TcpStream, b: TcpStream) {
    for (mut from, mut to) in [(a.try_clone().unwrap(), b.try_clone().unwrap()), (b, a)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
