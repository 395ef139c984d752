//! The applications in the pods: copies of this binary, in a cgroup and a network namespace of their own, driven line
//! by line over stdin and stdout.

use super::sys;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// First argument of a copy.
pub const ROLE: &str = "--app";
const PATIENCE: Duration = Duration::from_secs(5);

/// A running application.
pub struct App {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What a client saw of its connection.
#[derive(Debug)]
pub struct Seen {
    pub peer: SocketAddr,
    pub own: SocketAddr,
    /// The first line that came: what the other end saw.
    pub line: String,
}

impl Seen {
    /// The address after `key=` in the line.
    pub fn told(&self, key: &str) -> SocketAddr {
        let value = self.line.split(' ').find_map(|it| it.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

impl App {
    pub fn start(cgroup: &str, netns: &File) -> Self {
        use std::os::fd::AsRawFd as _;
        let netns = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([ROLE, cgroup, &netns])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut app = Self { child, stdin, stdout };
        assert_eq!(app.answer(), "ready");
        app
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command without waiting for its answer.
    pub fn send(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    /// The answer to the oldest command without one.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.answer()
    }

    pub fn listen(&mut self, address: &str) {
        assert_eq!(self.ask(&format!("listen {address}")), "ok", "listening on {address}");
    }

    /// Runs a client command; the error is the name of its kind or the errno.
    pub fn client(&mut self, command: &str) -> Result<Seen, String> {
        let answer = self.ask(command);
        let mut words = answer.splitn(4, ' ');
        match words.next() {
            Some("ok") => Ok(Seen {
                peer: words.next().unwrap().parse().unwrap(),
                own: words.next().unwrap().parse().unwrap(),
                line: words.next().unwrap_or_default().to_owned(),
            }),
            _ => Err(answer),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The copy's main function.
pub fn run() {
    let arguments: Vec<String> = std::env::args().collect();
    fs::write(format!("{}/cgroup.procs", arguments[2]), std::process::id().to_string()).unwrap();
    sys::enter(&File::open(&arguments[3]).unwrap());
    println!("ready");
    let mut socket = None;
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["listen", address] => listen(address.parse().unwrap()).map(|()| "ok".to_owned()),
            ["flood", address, count, threads] => {
                Ok(flood(address.parse().unwrap(), count.parse().unwrap(), threads.parse().unwrap()))
            }
            ["connect", address, options @ ..] => {
                let (address, options) = (address.parse().unwrap(), options.to_vec());
                // On a thread, as privileges may go.
                let connected =
                    thread::scope(|scope| scope.spawn(|| connect(address, &options)).join().unwrap());
                connected.and_then(|it| see(socket.insert(it)))
            }
            ["again", address] => socket.as_ref().map_or(Err(io::ErrorKind::NotConnected.into()), |socket| {
                sys::disconnect(socket)?;
                socket.connect(&address.parse::<SocketAddr>().unwrap().into())?;
                see(socket)
            }),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        println!("{}", answer.unwrap_or_else(|error| format!("error {:?}", error.kind())));
    }
}

fn connect(address: SocketAddr, options: &[&str]) -> io::Result<Socket> {
    let has = |option| options.contains(&option);
    let target = match address.ip() {
        IpAddr::V4(v4) if has("mapped") => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        _ => address,
    };
    let protocol = if has("mptcp") { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(protocol))?;
    if has("nobody") {
        sys::become_nobody();
    }
    if has("device") {
        socket.bind_device(Some(b"eth0"))?;
    }
    socket.connect_timeout(&target.into(), PATIENCE)?;
    Ok(socket)
}

/// What the socket says of itself, and the first line from the other end.
fn see(socket: &Socket) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let address = |it: socket2::SockAddr| it.as_socket().ok_or(io::ErrorKind::InvalidData);
    let (peer, own) = (address(socket.peer_addr()?)?, address(socket.local_addr()?)?);
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    Ok(format!("ok {peer} {own} {}", line.trim_end()))
}

/// Serves for ever: tells each client what this end sees of it.
fn listen(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        loop {
            let (mut stream, accepted) = listener.accept().unwrap();
            let peer = stream.peer_addr().map_or_else(|error| error.to_string(), |it| it.to_string());
            let own = stream.local_addr().unwrap();
            let _ = writeln!(stream, "app accepted={accepted} peer={peer} own={own}");
            // Until the client closes, so that its port stays in use while it looks.
            thread::spawn(move || stream.read(&mut [0]));
        }
    });
    Ok(())
}

/// Connects many times; the agent must know each time where to. Answers misses and microseconds per connect.
fn flood(address: SocketAddr, count: usize, threads: usize) -> String {
    let expected = format!("agent destination={address}");
    let one = || {
        let mut misses = 0;
        for _ in 0..count / threads {
            let mut line = String::new();
            let met =
                TcpStream::connect(address).and_then(|stream| BufReader::new(stream).read_line(&mut line));
            misses += usize::from(met.is_err() || line.trim_end() != expected);
        }
        misses
    };
    let start = Instant::now();
    let misses: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    format!("misses={misses} us={:.1}", start.elapsed().as_secs_f64() * 1e6 / count as f64)
}
