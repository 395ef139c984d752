//! The demo: two nodes, a few pods, and what warren does for them, shown with real programs and real output.
//!
//! Every step checks what it claims, so that the demo is a test too.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use crate::lab::{Lab, LabBuilder, Mesh, PodSpec};
use crate::session::{self, Session};

mod keep;
mod outside;
mod relabel;
mod requests;
mod scene;
mod story;
mod tools;
mod wire;

use scene::Scene;
use story::Story;

/// Shows the mesh at work: two nodes, a few pods, step by step.
#[derive(Parser)]
#[command(name = "warren-demo")]
struct Options {
    /// Leave everything running at the end, with instructions, until Enter or Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    session::run(move |session| tell(session, &options))
}

fn cluster() -> LabBuilder {
    let web = |pod: PodSpec| pod.namespace("shop").service_account("web").label("app", "web");
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("web-1", |pod| web(pod).on("n1"))
        .pod("web-2", |pod| web(pod).on("n2"))
        .pod("outsider", |pod| pod.on("n1"))
        .service("web", |service| {
            service.namespace("shop").port("http", 80, scene::WEB_PORT).select("app", "web")
        })
}

fn tell(session: &Session, options: &Options) -> Result<()> {
    let start = Instant::now();
    let story = Story::begin();
    story.heading("warren: a service mesh without sidecars")?;
    story.say(
        "Two nodes on this machine, each with its own agent; pods with real IPs; one controller.\n\
         Commands run as you would type them, in a pod (client$) or on a node (n1#). Nothing is canned.",
    )?;
    let lab = session.up(cluster())?;
    let mut scene = Scene::set(&lab, story)?;
    requests::cluster(&mut scene)?;
    requests::by_service_name(&mut scene)?;
    requests::servers_view(&mut scene)?;
    outside::between_the_nodes(&mut scene)?;
    tools::flows(&mut scene)?;
    tools::certificates(&mut scene)?;
    outside::not_in_the_mesh(&mut scene)?;
    relabel::without_restart(&mut scene)?;
    let seconds = start.elapsed().as_secs_f64();
    let proven = scene.story.proven();
    scene.story.heading(&format!("Done: {proven} claims shown and checked in {seconds:.1} s"))?;
    if options.keep {
        keep::until_told(&scene)?;
    }
    Ok(())
}
