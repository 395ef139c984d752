//! Where the mesh ends: what it leaves alone, what it lets in without an identity, and what it refuses.

use warren_tests::checks;
use warren_tests::lab::{Lab, LabBuilder, Mesh, run_checks};

mod flood;
mod forge;
mod hostile;
mod ours;
mod peer;
mod same_node;

/// Of pod `cidr`, which another pod's annotation excludes: 10.244.2.77.
const CIDR_POD: u8 = 77;

fn shop() -> LabBuilder {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("near", |pod| pod.on("n1").namespace("shop"))
        .pod("careful", |pod| {
            pod.on("n1")
                .namespace("shop")
                .annotation("warren.dev/exclude-outbound-ports", "9001, 9009")
                .annotation("warren.dev/exclude-inbound-ports", "9002")
                .annotation("warren.dev/exclude-outbound-cidrs", "10.244.2.77/32, fd00:10:244:2::77")
        })
        .pod("far", |pod| pod.on("n2").namespace("shop").service_account("server"))
        .pod("cidr", |pod| pod.on("n2").namespace("shop").number(CIDR_POD))
        .pod("stranger", |pod| pod.on("n1"))
        .pod("outside", |pod| pod.on("n2"))
        .service("plain", |service| service.port("tcp", 80, 9000).select("app", "plain"))
        .pod("plain", |pod| pod.on("n2").label("app", "plain"))
}

#[test]
fn the_mesh_ends_where_it_says() {
    shop().test(|lab| {
        lab.start_mesh()?;
        run_checks(
            lab,
            checks![
                ours::pods_outside_are_untouched,
                ours::plaintext_enters_without_an_identity,
                ours::the_kubelets_probes_pass,
                ours::what_is_excluded_is_left_alone,
                ours::the_agents_ports_serve_nobody,
                ours::a_pod_that_uses_our_port_waits_and_says_why,
            ],
        )
    });
}

#[test]
fn neighbours_are_told_apart() {
    shop().test(|lab| {
        lab.start_mesh()?;
        run_checks(
            lab,
            checks![
                same_node::anothers_address_opens_nothing,
                same_node::a_neighbours_tunnel_asks_for_papers_and_leads_nowhere_else,
            ],
        )
    });
}

#[test]
fn liars_are_refused_and_seen() {
    shop().test(|lab| {
        lab.start_mesh()?;
        run_checks(
            lab,
            checks![
                hostile::a_peer_with_proper_papers_enters,
                hostile::peers_without_proper_papers_are_refused,
                hostile::other_protocols_are_refused,
                hostile::a_tunnel_leads_to_its_own_pod_alone,
                hostile::a_claimed_client_address_is_not_believed,
                hostile::a_server_that_is_somebody_else_is_refused,
                flood::a_giant_header_is_refused,
                flood::a_stream_that_is_never_read_holds_little,
                flood::streams_beyond_the_limit_are_refused,
                flood::a_tunnel_that_never_begins_is_cut_off,
                flood::slow_handshakes_are_cut_off,
                flood::half_open_handshakes_stay_few_and_harm_nobody,
                // After all that the door still opens.
                hostile::a_peer_with_proper_papers_enters,
            ],
        )
    });
}
