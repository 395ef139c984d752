//! TLS peers that behave as they please: clients of port 15008, and servers on it.

use std::any::Any;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::{Method, Request};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use warren_tests::lab::{NetNs, Pod};

use crate::forge::Papers;

const LIMIT: Duration = Duration::from_secs(8);

/// What an honest client speaks, and what none should any more.
pub(crate) static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
pub(crate) static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// What to do once TLS stands.
pub(crate) enum Ask<'a> {
    /// CONNECT to this authority, naming this client if any; what the tunnel then brings is part of the answer.
    Connect(&'a str, Option<&'a str>),
    /// GET instead of CONNECT.
    Get(&'a str),
    /// Bytes that are no HTTP/2.
    Garbage,
}

/// Streams that nobody reads; dropping this ends them.
pub(crate) struct Unread {
    _streams: Box<dyn Any>,
    _connection: Box<dyn Any>,
    _runtime: tokio::runtime::Runtime,
}

/// A client from a pod that is not in the mesh.
pub(crate) struct Client<'a> {
    pub(crate) from: &'a Pod,
    pub(crate) papers: Option<&'a Papers>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) alpn: &'a str,
}

impl<'a> Client<'a> {
    pub(crate) fn new(from: &'a Pod, papers: Option<&'a Papers>) -> Self {
        Self { from, papers, versions: TLS13, alpn: "h2" }
    }

    /// The status of the answer, and the bytes of the tunnel. An error: there was no answer.
    pub(crate) fn ask(&self, gateway: SocketAddr, ask: &Ask<'_>) -> Result<(u16, String)> {
        let socket = dial(self.from.place().netns(), gateway)?;
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let work = async {
                let socket = tokio::net::TcpStream::from_std(socket)?;
                let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
                let name = ServerName::from(gateway.ip());
                converse(tls.connect(name, socket).await?, ask).await
            };
            tokio::time::timeout(LIMIT, work).await.map_err(|_| anyhow!("no answer within {LIMIT:?}"))?
        })
    }

    /// Opens streams with room for 1 GiB each and reads nothing of what comes, for as long as the answer lives.
    pub(crate) fn hold_unread(&self, gateway: SocketAddr, to: &str, streams: usize) -> Result<Unread> {
        let socket = dial(self.from.place().netns(), gateway)?;
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let held = runtime.block_on(async {
            let socket = tokio::net::TcpStream::from_std(socket)?;
            let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
                .connect(ServerName::from(gateway.ip()), socket)
                .await?;
            let (mut send, mut connection) = h2::client::Builder::new()
                .initial_window_size(1 << 30)
                .initial_connection_window_size(1 << 30)
                .handshake::<_, Bytes>(tls)
                .await?;
            let opened = async {
                let mut held = Vec::new();
                for _ in 0..streams {
                    send = send.ready().await?;
                    let request = Request::builder().method(Method::CONNECT).uri(to).body(())?;
                    let (response, stream) = send.send_request(request, false)?;
                    held.push((response.await?, stream));
                }
                anyhow::Ok(held)
            };
            let opened = tokio::select! {
                opened = opened => opened?,
                ended = &mut connection => anyhow::bail!("hung up: {ended:?}"),
            };
            // From here on nobody polls the connection: its socket fills.
            anyhow::Ok((Box::new(opened) as Box<dyn Any>, Box::new(connection) as Box<dyn Any>))
        })?;
        Ok(Unread { _streams: held.0, _connection: held.1, _runtime: runtime })
    }

    /// TLS stands, and then nothing is said; how long the other side bears with that.
    pub(crate) fn say_nothing(&self, gateway: SocketAddr, limit: Duration) -> Result<Duration> {
        let began = std::time::Instant::now();
        self.with_tls(gateway, limit, async |mut tls| {
            let mut said = Vec::new();
            // However it ends: it has.
            let _ = tls.read_to_end(&mut said).await;
            Ok(())
        })?;
        Ok(began.elapsed())
    }

    /// Opens so many streams at once, whatever the other side's settings say; how many of them it refused.
    pub(crate) fn open_too_many(&self, gateway: SocketAddr, to: &str, streams: u32) -> Result<usize> {
        self.with_tls(gateway, LIMIT, async |mut tls| {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            bytes.extend(frame(SETTINGS, 0, 0, &[]));
            // :method CONNECT and :authority, as literals (RFC 7541, section 6.2.2).
            let length = u8::try_from(to.len())?;
            let block = [b"\x02\x07CONNECT\x01", &[length][..], to.as_bytes()].concat();
            for number in 0..streams {
                bytes.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &block));
            }
            tls.write_all(&bytes).await?;
            let (mut answered, mut refused) = (0, 0);
            while answered < streams {
                let mut head = [0; 9];
                tls.read_exact(&mut head).await?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                tls.read_exact(&mut payload).await?;
                answered += u32::from(matches!(head[3], HEADERS | RST_STREAM));
                // REFUSED_STREAM
                refused += usize::from(head[3] == RST_STREAM && payload == [0, 0, 0, 7]);
            }
            Ok(refused)
        })
    }

    /// TLS with the gateway, and what to do with it.
    fn with_tls<T>(
        &self,
        gateway: SocketAddr,
        limit: Duration,
        work: impl AsyncFnOnce(tokio_rustls::client::TlsStream<tokio::net::TcpStream>) -> Result<T>,
    ) -> Result<T> {
        let socket = dial(self.from.place().netns(), gateway)?;
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let work = async {
                let socket = tokio::net::TcpStream::from_std(socket)?;
                let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
                work(tls.connect(ServerName::from(gateway.ip()), socket).await?).await
            };
            tokio::time::timeout(limit, work).await.map_err(|_| anyhow!("no answer within {limit:?}"))?
        })
    }

    fn config(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let mut config = match self.papers {
            Some(papers) => builder.with_client_auth_cert(papers.chain.clone(), papers.key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        Ok(config)
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn dial(netns: &NetNs, to: SocketAddr) -> Result<TcpStream> {
    let socket = netns.enter(|| TcpStream::connect_timeout(&to, LIMIT))??;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn converse<S>(mut tls: S, ask: &Ask<'_>) -> Result<(u16, String)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let request = match ask {
        Ask::Garbage => {
            tls.write_all(&[b'x'; 4096]).await?;
            // Whatever h2 says before it hangs up is no answer to anything.
            let mut text = Vec::new();
            tls.read_to_end(&mut text).await?;
            return Err(anyhow!("hung up after {} bytes", text.len()));
        }
        Ask::Get(authority) => {
            Request::builder().method(Method::GET).uri(format!("https://{authority}/")).body(())?
        }
        Ask::Connect(authority, client) => {
            let request = Request::builder().method(Method::CONNECT).uri(*authority);
            match client {
                Some(client) => request.header("forwarded", format!("for=\"{client}\"")),
                None => request,
            }
            .body(())?
        }
    };
    let (send, connection) = h2::client::handshake(tls).await?;
    tokio::pin!(connection);
    let answer = async {
        let mut send = send.ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        let response = response.await?;
        let status = response.status().as_u16();
        let mut text = String::new();
        if status == 200 {
            stream.send_data(Bytes::new(), true)?;
            let mut body = response.into_body();
            while let Some(chunk) = body.data().await {
                text += &String::from_utf8_lossy(&chunk?);
            }
        }
        Ok((status, text))
    };
    tokio::select! {
        answer = answer => answer,
        ended = &mut connection => Err(ended.err().map_or_else(|| anyhow!("hung up"), Into::into)),
    }
}

/// A server on port 15008 of a pod; it stops when it is dropped.
pub(crate) struct Impostor {
    netns: NetNs,
    address: SocketAddr,
    shown: Arc<Mutex<Option<Arc<ServerConfig>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// Listens in the pod, without papers as yet. It keeps the port for all that is tried: the node's agent waits for it
    /// and takes it once it is free.
    pub(crate) fn start(pod: &Pod) -> Result<Self> {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15008));
        let netns = pod.place().netns().clone();
        let listener = netns.enter(|| std::net::TcpListener::bind(address))?.context("15008")?;
        let shown = Arc::<Mutex<Option<Arc<ServerConfig>>>>::default();
        let papers = Arc::clone(&shown);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let config = papers.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // What becomes of it is the client's to tell.
                let _ = accept(socket, config);
            }
        });
        Ok(Self {
            netns,
            address: SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 15008),
            shown,
            stop,
            thread: Some(thread),
        })
    }

    /// The next connections are accepted with these papers, and nothing is ever said in them. Without papers it is not
    /// even TLS.
    pub(crate) fn show(&self, papers: Option<&Papers>) -> Result<()> {
        let config = papers.map(server_config).transpose()?.map(Arc::new);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = self.netns.enter(|| TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn server_config(papers: &Papers) -> Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(papers.chain.clone(), papers.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn accept(mut socket: TcpStream, config: Option<Arc<ServerConfig>>) -> Result<()> {
    use std::io::{Read as _, Write as _};
    socket.set_read_timeout(Some(LIMIT))?;
    let Some(config) = config else {
        socket.write_all(b"220 this is no TLS\r\n")?;
        let _ = socket.read(&mut [0; 1024])?;
        return Ok(());
    };
    let mut tls = rustls::ServerConnection::new(config)?;
    tls.complete_io(&mut socket)?;
    // Until the client hangs up.
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    std::io::copy(&mut stream, &mut std::io::sink())?;
    Ok(())
}

/// Believes every server: who attacks does not care whom.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
