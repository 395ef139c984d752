//! The lab: nodes and pods as network namespaces and cgroups on one machine, and the programs that run in them.
//!
//! ```no_run
//! use warren_tests::lab::{Lab, Mesh};
//!
//! Lab::builder()
//!     .nodes(["n1", "n2"])
//!     .namespace("shop", Mesh::Enabled)
//!     .pod("client", |pod| pod.on("n1").namespace("shop"))
//!     .pod("web", |pod| pod.on("n2").namespace("shop").label("app", "web"))
//!     .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"))
//!     .test(|lab| {
//!         lab.start_mesh()?;
//!         let _server = lab.pod("web").serve(["http", "--port", "8080"])?;
//!         let answer = lab.pod("client").command("curl").arg("http://web.shop/").resolve_names().stdout()?;
//!         assert!(answer.contains("web"));
//!         Ok(())
//!     });
//! ```

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod lab;
mod nginx;
mod pcap;
mod session;
pub mod shared;
mod sys;
mod terminal;
mod tls;
pub mod workload;
