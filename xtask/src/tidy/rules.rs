//! The invariants themselves: HOUSE sections 1 and 2 as a table. A path prefix names a folder or a file stem.

use super::Violation;
use super::paths::{Named, named};
use super::source::{code_only, without_tests};

/// Sources below `within`, but not below `except`, must not name any of `never`.
struct Rule {
    name: &'static str,
    why: &'static str,
    within: &'static [&'static str],
    except: &'static [&'static str],
    never: &'static [&'static str],
}

const PURE: &[&str] = &[
    "agent/src/balance",
    "agent/src/policy",
    "agent/src/route",
    "agent/src/store/apply",
    "agent/src/xds/session",
    "agent/src/identity/renewal",
    "agent/src/control/trust/rule",
    "agent/src/interest/lead",
    "agent/src/interest/ledger",
    "controller/src/index",
    "controller/src/resolve",
    "controller/src/push/session",
    "controller/src/ca/review_cache",
    "controller/src/ca/rotation",
    "controller/src/source/kubernetes/ledger",
    "controller/src/source/kubernetes/split",
    "controller/src/status/lease",
    "controller/src/status/reports",
];

const RULES: &[Rule] = &[
    Rule {
        name: "halves-apart",
        why: "agent and controller agree through common alone",
        within: &["agent", "common", "ebpf"],
        except: &[],
        never: &["warren_controller"],
    },
    Rule {
        name: "halves-apart",
        why: "agent and controller agree through common alone",
        within: &["controller", "common", "ebpf"],
        except: &[],
        never: &["warren_agent"],
    },
    Rule {
        name: "abi-is-core",
        why: "the kernel programs are no_std and share these types",
        within: &["common/src/abi"],
        except: &[],
        never: &["std", "alloc", "tokio", "serde", "prost", "libc", "thiserror"],
    },
    Rule {
        name: "model-is-pure",
        why: "domain types know no library, so that every layer may use them",
        within: &["common/src/model"],
        except: &[],
        never: &["tokio", "prost", "tonic", "kube", "hyper", "rustls", "aya"],
    },
    Rule {
        name: "proto-is-data",
        why: "messages and their conversion do no I/O",
        within: &["common/src/proto"],
        except: &[],
        never: &["tokio", "kube"],
    },
    Rule {
        name: "pure",
        why: "decisions are data in, data out: no sockets, no tasks, no library of an adapter",
        within: PURE,
        except: &[],
        never: &[
            "tokio",
            "rustls",
            "tonic",
            "prost",
            "kube",
            "hyper",
            "h2",
            "aya",
            "prometheus_client",
            "std::thread",
            "TcpStream::connect",
            "UdpSocket::bind",
        ],
    },
    Rule {
        name: "no-clock",
        why: "time is an argument, so that tests can simulate it",
        within: PURE,
        except: &[],
        never: &["Instant::now", "SystemTime::now"],
    },
    Rule {
        name: "no-proto-inside",
        why: "wire messages are converted at the edge; the inside knows the model alone",
        within: &[
            "agent/src/policy",
            "agent/src/route",
            "agent/src/balance",
            "agent/src/outbound",
            "agent/src/inbound",
            "agent/src/store",
            "controller/src/index",
        ],
        // xDS resources become model types on their way into the store.
        except: &["agent/src/store/apply", "agent/src/store/convert"],
        never: &["warren_common::proto"],
    },
    Rule {
        name: "aya-in-kernel",
        why: "one room knows the BPF library, behind a trait with a fake",
        within: &["agent", "common", "controller", "cli", "tests"],
        except: &["agent/src/kernel", "agent/tests/kernel", "common/src/abi"],
        never: &["aya", "aya_log", "aya_obj"],
    },
    Rule {
        name: "tonic-at-the-edges",
        why: "gRPC lives where streams begin and end, nothing else depends on it",
        within: &["agent", "common", "controller", "cli"],
        except: &[
            // The authenticated channel that xDS and certificates share: adapters must not import each other.
            "agent/src/control",
            "agent/src/xds",
            "agent/src/identity",
            "controller/src/push",
            "controller/src/ca",
            // Wiring may use everything.
            "agent/src/app",
            "controller/src/app",
            "controller/tests",
            "common/src/proto",
            "common/build",
        ],
        never: &["tonic"],
    },
    Rule {
        name: "http-at-the-edges",
        why: "HTTP machinery stays in the rooms that speak it",
        within: &["agent/src"],
        except: &["agent/src/tunnel", "agent/src/http", "agent/src/observe"],
        never: &["hyper", "hyper_util", "h2"],
    },
    Rule {
        name: "kube-in-source",
        why: "Kubernetes is one of two sources; nothing else may depend on it",
        within: &["agent", "common", "controller", "cli"],
        except: &[
            // The connection, and who uses it: the source, what is written back, and the CA's two adapters.
            "controller/src/kubernetes",
            "controller/src/source",
            "controller/src/status",
            "controller/src/ca/review",
            "controller/src/ca/keeper/secret",
            "controller/src/ca/keeper/shares",
            "controller/src/ca/revocations/map",
            "cli/src/cluster",
            "cli/src/install",
        ],
        never: &["kube", "k8s_openapi"],
    },
    Rule {
        name: "stories-name-stages",
        why: "the stories read as stages, not as libraries",
        within: &["agent/src/outbound", "agent/src/inbound"],
        except: &[],
        never: &["aya", "tonic", "kube"],
    },
    Rule {
        name: "top-is-top",
        why: "app and config are wiring; nobody imports them, each component has its own config",
        within: &["agent/src", "controller/src"],
        except: &["agent/src/app", "agent/src/config", "controller/src/app", "controller/src/config"],
        never: &["crate::app", "crate::config"],
    },
    Rule {
        name: "observe-watches",
        why: "every stage reports to observe, so observe may know none of them",
        within: &["agent/src/observe"],
        except: &[],
        never: &[
            "crate::kernel",
            "crate::accept",
            "crate::identity",
            "crate::tunnel",
            "crate::http",
            "crate::xds",
            "crate::outbound",
            "crate::inbound",
        ],
    },
    Rule {
        name: "one-socket-factory",
        why: "sockets open in the pod's netns with the agent's options, in one place",
        within: &["agent/src"],
        // What is handed over in the tests is nobody's door.
        except: &[
            "agent/src/accept",
            "agent/src/observe",
            "agent/src/app",
            "agent/src/handover/offer_tests",
            "agent/src/tunnel/relay_tests",
            "agent/src/tunnel/dedicated_tests",
        ],
        never: &[
            "TcpStream::connect",
            "TcpListener::bind",
            "TcpSocket::new_v4",
            "TcpSocket::new_v6",
            "Socket::new",
        ],
    },
    Rule {
        name: "typed-errors",
        why: "libraries have error enums named for what was wrong; anyhow is for main and tests",
        within: &["agent/src", "controller/src", "common/src"],
        except: &["agent/src/app", "controller/src/app"],
        never: &["anyhow"],
    },
];

/// Adapters of the agent: each has its one library and must not know the others.
const ADAPTERS: &[(&str, &[&str])] = &[
    ("agent/src/kernel", &["accept", "identity", "tunnel", "http", "xds"]),
    ("agent/src/accept", &["kernel", "identity", "tunnel", "http", "xds"]),
    ("agent/src/identity", &["kernel", "accept", "tunnel", "http", "xds"]),
    ("agent/src/tunnel", &["kernel", "accept", "identity", "xds"]),
    ("agent/src/http", &["kernel", "accept", "identity", "xds"]),
    ("agent/src/xds", &["kernel", "accept", "identity", "tunnel", "http"]),
];

/// Unfinished or switched-off code.
const LEFTOVERS: &[&str] = &["todo!", "unimplemented!", "#[ignore"];

/// A file longer than this does more than one thing.
const LONGEST_FILE: usize = 700;

/// Checks one source; `file` is its path from the workspace's root.
pub(crate) fn check(file: &str, text: &str) -> Vec<Violation> {
    let code = code_only(text);
    let mut found = Vec::new();
    if !is_test(file) {
        let paths = named(without_tests(&code));
        for rule in RULES {
            if below_any(file, rule.within) && !below_any(file, rule.except) {
                found.extend(rule.never.iter().flat_map(|banned| naming(file, rule, banned, &paths)));
            }
        }
        found.extend(foreign_adapters(file, &paths));
    }
    // One `use` with many leaves is one violation.
    found.dedup_by(|later, first| later.line == first.line && later.rule == first.rule);
    for (number, line) in code.lines().enumerate() {
        found.extend(LEFTOVERS.iter().filter(|leftover| line.contains(**leftover)).map(|leftover| {
            Violation {
                file: file.to_owned(),
                line: number + 1,
                rule: "finished",
                what: format!("`{leftover}`"),
                why: "main holds finished code and tests that run",
            }
        }));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        found.push(Violation {
            file: file.to_owned(),
            line: lines,
            rule: "small-files",
            what: format!("{lines} lines"),
            why: "a file of more than 700 lines does more than one thing",
        });
    }
    found
}

fn naming(file: &str, rule: &Rule, banned: &str, paths: &[Named]) -> Vec<Violation> {
    let hits = paths.iter().filter(|path| path.names(banned));
    let violation = |path: &Named| Violation {
        file: file.to_owned(),
        line: path.line,
        rule: rule.name,
        what: format!("names `{}`", path.segments.join("::")),
        why: rule.why,
    };
    hits.map(violation).collect()
}

fn foreign_adapters(file: &str, paths: &[Named]) -> Vec<Violation> {
    let foreign = ADAPTERS.iter().filter(|(room, _)| below(file, room)).flat_map(|(_, others)| *others);
    let hits =
        foreign.flat_map(|other| paths.iter().filter(move |path| path.names(&format!("crate::{other}"))));
    let violation = |path: &Named| Violation {
        file: file.to_owned(),
        line: path.line,
        rule: "adapters-apart",
        what: format!("names `{}`", path.segments.join("::")),
        why: "adapters meet in the stories, through types of the layers below",
    };
    hits.map(violation).collect()
}

fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs")
        || file.ends_with("_tests.rs")
        || file.contains("/src/") && file.contains("/tests/")
}

fn below_any(file: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| below(file, prefix))
}

/// Whether `file` is `prefix.rs` or lies in the folder `prefix`.
fn below(file: &str, prefix: &str) -> bool {
    file.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_broken(file: &str, text: &str) -> Vec<&'static str> {
        check(file, text).into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn the_halves_stay_apart() {
        assert_eq!(rules_broken("agent/src/app.rs", "use warren_controller::ca;"), ["halves-apart"]);
        assert_eq!(
            rules_broken("controller/src/ca/mod.rs", "fn f() { warren_agent::run() }"),
            ["halves-apart"]
        );
        assert!(
            rules_broken("cli/src/main.rs", "use warren_agent::app; use warren_controller::app;").is_empty()
        );
    }

    #[test]
    fn only_kernel_names_aya() {
        assert_eq!(rules_broken("agent/src/accept/listen.rs", "use aya::maps::SockHash;"), ["aya-in-kernel"]);
        assert!(rules_broken("agent/src/kernel/load.rs", "use aya::maps::SockHash;").is_empty());
        assert!(rules_broken("agent/src/accept/listen.rs", "// aya::maps\nlet s = \"aya::x\";").is_empty());
    }

    #[test]
    fn policy_has_no_clock_no_runtime_and_no_wire() {
        let text =
            "use tokio::net::TcpStream;\nfn f() { Instant::now(); }\nuse warren_common::{model, proto::X};";
        assert_eq!(
            rules_broken("agent/src/policy/verdict.rs", text),
            ["pure", "no-clock", "no-proto-inside"]
        );
        assert!(rules_broken("agent/src/app.rs", text).is_empty());
    }

    #[test]
    fn a_violation_names_its_line() {
        let found = check(
            "agent/src/route.rs",
            "//! x\n\nuse std::time::Instant;\nfn f() -> Instant { Instant::now() }",
        );
        assert_eq!(found.iter().map(|violation| violation.line).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn tests_may_use_a_clock() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n fn g() { Instant::now(); }\n}\n";
        assert!(rules_broken("agent/src/route/mod.rs", text).is_empty());
        assert!(rules_broken("agent/src/route/tests.rs", "use tokio::test;").is_empty());
    }

    #[test]
    fn tonic_kube_hyper_and_config_keep_to_their_rooms() {
        assert_eq!(rules_broken("agent/src/store/mod.rs", "use tonic::Status;"), ["tonic-at-the-edges"]);
        assert_eq!(rules_broken("controller/src/index/mod.rs", "use kube::Api;"), ["pure", "kube-in-source"]);
        assert_eq!(rules_broken("agent/src/accept.rs", "use hyper::body::Body;"), ["http-at-the-edges"]);
        assert_eq!(
            rules_broken("agent/src/tunnel/pool.rs", "use crate::{config::Config, store};"),
            ["top-is-top"]
        );
        assert_eq!(rules_broken("agent/src/tunnel/pool.rs", "use crate::kernel::Maps;"), ["adapters-apart"]);
    }

    #[test]
    fn leftovers_and_long_files_are_found() {
        assert_eq!(rules_broken("cli/src/main.rs", "fn f() { todo!() }"), ["finished"]);
        assert_eq!(rules_broken("cli/src/main.rs", "#[ignore = \"slow\"]"), ["finished"]);
        assert!(rules_broken("cli/src/main.rs", "// todo!()").is_empty());
        assert_eq!(rules_broken("cli/src/main.rs", &"\n".repeat(701)), ["small-files"]);
    }

    #[test]
    fn a_prefix_is_a_folder_or_a_file() {
        assert!(below("agent/src/app.rs", "agent/src/app") && below("agent/src/app/x.rs", "agent/src/app"));
        assert!(!below("agent/src/apple.rs", "agent/src/app"));
    }
}
