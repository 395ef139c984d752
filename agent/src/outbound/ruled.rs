//! A connection to a service of which rules or a DestinationRule say something: whether it carries requests, which have a story
//! of their own, or goes on as bytes, and where.

use super::course::Course;
use super::hear::{self, Ear, Heard};
use super::rules::{Routed, Spoken};
use super::{OutboundError, Reached, convey, reach, requests};
use crate::accept::{end, reset};
use crate::context::Context;
use crate::flow::{Dialled, Hello};
use crate::inbound::Refusal;
use crate::limits::Excess;
use crate::observe::FlowHandle;
use crate::pods::Pod;
use crate::route::l4::Said;
use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Carries it from what it carries to its end.
pub(super) async fn serve(
    context: Rc<Context>,
    pod: Arc<Pod>,
    client: SocketAddr,
    routed: Routed,
    socket: TcpStream,
    flow: FlowHandle,
    open: watch::Receiver<()>,
) {
    flow.service(&routed.service);
    // What carries HTTP may be silent for so long; what may not, for as long as any connection.
    let limit = context.node.limits.config().idle_connection;
    let silent = async {
        match routed.requests {
            Spoken::Declared => tokio::time::sleep(requests::idle_limit(&context)).await,
            Spoken::Undeclared | Spoken::Unheard if ear(&routed).is_some() && !limit.is_zero() => {
                tokio::time::sleep(limit).await;
            }
            Spoken::Undeclared | Spoken::Unheard => pending().await,
        }
    };
    let heard = {
        let dialled = Dialled {
            pod: Arc::clone(&pod),
            client,
            destination: routed.dialled,
            hello: Hello::Unread(&socket),
            shares: false,
        };
        tokio::select! {
            // Boxed, as what follows: what hearing needs is large and gone once heard, and a quiet HTTP connection is small.
            heard = Box::pin(hear(&context, dialled, &routed, &socket, &flow)) => heard,
            () = pod.lifetime.cut() => Err(OutboundError::Gone(Arc::clone(&pod.workload.name))),
            () = silent => match routed.requests {
                Spoken::Declared => {
                    flow.discard();
                    return end(socket);
                }
                Spoken::Undeclared | Spoken::Unheard => {
                    let exceeded = context.node.limits.exceeded(&pod.workload.uid, Excess::Idle);
                    Err(Refusal::Limit(exceeded).into())
                }
            }
        }
    };
    match heard {
        Ok(Carried::Requests { h2 }) => {
            requests::serve(context, pod, client, (routed, h2), socket, flow, open).await;
        }
        Ok(Carried::Bytes(reached)) => Box::pin(convey(&context, pod, socket, reached, flow)).await,
        Err(error) => {
            flow.fail(error.flag(), error);
            reset(socket);
        }
    }
}

/// What is listened for; none: nothing hinges on what is said first.
fn ear(routed: &Routed) -> Option<Ear> {
    let http = routed.requests != Spoken::Unheard;
    let tls = routed.connections.table.as_ref().is_some_and(|table| table.hinges_on_name());
    (http || tls).then_some(Ear { http, tls })
}

/// What a connection carries.
enum Carried {
    Requests {
        h2: bool,
    },
    /// Where they go was reached.
    Bytes(Reached),
}

/// What it carries; bytes have been led to where they go.
async fn hear(
    context: &Rc<Context>,
    mut dialled: Dialled<'_>,
    routed: &Routed,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Result<Carried, OutboundError> {
    if routed.requests == Spoken::Declared {
        return Ok(Carried::Requests { h2: hear::is_h2(socket).await });
    }
    let bytes = Course::new(routed, Said::Bytes);
    let Some(ear) = ear(routed) else {
        return reach(context, &dialled, &bytes?, None, flow).await.map(Carried::Bytes);
    };
    // What may turn out to be something else has no tunnel of its own: its server could not be heard.
    dialled.shares = true;
    match hear::protocol(context, &dialled, ear, bytes, socket, flow).await? {
        Heard::Tls(name) => {
            dialled.shares = false;
            let course = Course::new(routed, Said::Tls(&name))?;
            reach(context, &dialled, &course, None, flow).await.map(Carried::Bytes)
        }
        Heard::Http { h2 } => Ok(Carried::Requests { h2 }),
        Heard::Other(reached) => Ok(Carried::Bytes(reached)),
    }
}
