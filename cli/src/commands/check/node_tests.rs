use super::*;
use crate::render::check::Outcome;

fn result(finding: &Finding) -> Outcome {
    finding.result
}

#[test]
fn kernels_are_compared_as_numbers() {
    for (release, expected) in [
        ("6.1.0-13-amd64\n", Outcome::Good),
        ("6.18.44\n", Outcome::Good),
        ("10.0.1\n", Outcome::Good),
        ("5.15.0-100-generic\n", Outcome::Bad),
        ("6.0.9\n", Outcome::Bad),
        ("", Outcome::Bad),
    ] {
        assert_eq!(result(&kernel(Ok(release.into()))), expected, "{release:?}");
    }
}

#[test]
fn mounts_are_found_in_unified_and_hybrid_layouts() {
    let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
    assert_eq!(result(&cgroup2(Ok(unified.into()))), Outcome::Good);
    assert_eq!(result(&bpffs(Ok(unified.into()))), Outcome::Good);
    let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    let found = cgroup2(Ok(hybrid.into()));
    assert_eq!(result(&found), Outcome::Good);
    assert!(found.detail.contains("/sys/fs/cgroup/unified"));
    assert_eq!(result(&bpffs(Ok(hybrid.into()))), Outcome::Bad);
    assert_eq!(result(&cgroup2(Ok(String::new()))), Outcome::Bad);
}

#[test]
fn missing_capabilities_are_named() {
    assert_eq!(result(&capabilities(Ok("CapEff:\t000001ffffffffff\n".into()))), Outcome::Good);
    let found = capabilities(Ok("CapPrm:\t0\nCapEff:\t0000000000201000\n".into()));
    assert_eq!((result(&found), found.detail.as_str()), (Outcome::Bad, "CAP_SYS_PTRACE missing"));
    assert_eq!(result(&capabilities(Err(io::ErrorKind::NotFound.into()))), Outcome::Bad);
}

#[test]
fn the_hard_limit_of_open_files_counts() {
    let limits = |hard: &str| {
        Ok(format!("Limit  Soft  Hard  Units\nMax open files            1024    {hard}   files\n"))
    };
    assert_eq!(result(&open_files(limits("524288"))), Outcome::Good);
    assert_eq!(result(&open_files(limits("unlimited"))), Outcome::Good);
    assert_eq!(result(&open_files(limits("4096"))), Outcome::Warning);
}

#[test]
fn a_node_without_anything_is_looked_at_without_panic() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(look(empty.path()).len(), 6);
}

#[test]
fn a_taken_port_is_told_from_a_free_one() {
    let stranger = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let taken = stranger.local_addr().unwrap().port();
    let ends = std::thread::spawn(move || stranger.incoming().take(2).for_each(drop));
    assert_eq!(result(&port("p", taken)), Outcome::Bad);
    ends.join().unwrap();

    let agent = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let taken = agent.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = agent.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nistio_build{component=\"warren\",tag=\"x\"} 1\n").unwrap();
    });
    assert_eq!(result(&port("p", taken)), Outcome::Good);
    answers.join().unwrap();
}
