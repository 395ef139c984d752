//! The CNI socket: one question per connection, from root alone.

use crate::accept::Netns;
use crate::pods::PodRequests;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use warren_cni::frame;
use warren_common::model::cni::{Answer, Request};
use warren_common::runtime::{DrainWatch, SocketFile};

/// Pods that may start at the same time; more wait in the listen queue.
const AT_ONCE: usize = 64;
/// For a question to arrive; the plugin sends it at once.
const QUESTION: Duration = Duration::from_secs(2);
/// How long a pod waits for the controller's word, or for what its capture needs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until the next attempt to accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection got no answer.
#[derive(Debug, thiserror::Error)]
enum QuestionError {
    #[error("it comes from user {0}; only root may ask")]
    Caller(u32),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error("it did not arrive within {} s", QUESTION.as_secs())]
    Slow,
}

/// Answers the CNI plugin until the drain begins, then removes the socket.
pub async fn serve(
    (listener, _file): (UnixListener, SocketFile),
    requests: PodRequests,
    mut drain: DrainWatch,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the CNI plugin");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = answer(stream, &requests).await {
                tracing::warn!(%error, "a question on the CNI socket got no answer");
            }
        });
    }
}

async fn answer(mut stream: UnixStream, requests: &PodRequests) -> Result<(), QuestionError> {
    let caller = stream.peer_cred()?.uid();
    if caller != 0 {
        return Err(QuestionError::Caller(caller));
    }
    let question = timeout(QUESTION, question(&stream)).await.map_err(|_| QuestionError::Slow)??;
    // The plugin may only want to know whether somebody is here.
    let Some((request, netns)) = question else { return Ok(()) };
    let netns = netns.map(Netns::of).transpose()?.map(Arc::new);
    let (command, pod) = (request.command, request.pod.clone());
    let answer = requests.ask(request, netns, PATIENCE).await;
    match &answer {
        Answer::NotYet(reason) => {
            tracing::warn!(?command, pod = %pod.name, namespace = %pod.namespace, reason, "a pod waits for its capture");
        }
        Answer::Done | Answer::NotInMesh => {
            tracing::debug!(?command, pod = %pod.name, namespace = %pod.namespace, ?answer, "CNI");
        }
    }
    stream.write_all(&frame::encode(&answer)?).await?;
    Ok(())
}

/// The request and the descriptor that came with it; none when the caller leaves without a word.
async fn question(stream: &UnixStream) -> Result<Option<(Request, Option<OwnedFd>)>, QuestionError> {
    let mut received = Vec::new();
    let mut netns = None;
    loop {
        let mut chunk = [0; 4096];
        let (read, descriptor) = stream.async_io(Interest::READABLE, || receive(stream, &mut chunk)).await?;
        netns = netns.or(descriptor);
        if read == 0 && received.is_empty() {
            return Ok(None);
        }
        received.extend(chunk.get(..read).unwrap_or_default());
        if let Some(request) = frame::decode(&received)? {
            return Ok(Some((request, netns)));
        }
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn receive(stream: &UnixStream, chunk: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    // Every descriptor is taken, so that none is left open.
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok((received.bytes, descriptors.collect::<Vec<_>>().into_iter().next()))
}
