//! Names of hosts: what a short one means, and which patterns hold a full one.

use std::net::IpAddr;
use std::sync::Arc;

/// The full name of a host that an object of `namespace` names: a name without a dot is that of a service there.
/// `*`, addresses and names with a dot stand as they are (Istio's rule).
pub fn full_name(host: &Arc<str>, namespace: &str, domain: &str) -> Arc<str> {
    if host.contains('.') || **host == *"*" || host.parse::<IpAddr>().is_ok() {
        return host.clone();
    }
    format!("{host}.{namespace}.svc.{domain}").into()
}

/// Whether a pattern, `*` and a suffix or a whole name, holds a host.
pub fn holds(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Every pattern that holds a host, the most specific first, and itself before all.
pub fn patterns(host: &str) -> impl Iterator<Item = String> {
    let suffixes = host.match_indices('.').map(|(at, _)| &host[at..]);
    let wildcards = suffixes.map(|suffix| format!("*{suffix}")).chain(std::iter::once("*".to_owned()));
    let itself = host.to_owned();
    std::iter::once(itself.clone()).chain(wildcards.filter(move |pattern| *pattern != itself))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_of_the_objects_namespace() {
        for (host, expected) in [
            ("reviews", "reviews.shop.svc.cluster.local"),
            ("reviews.prod", "reviews.prod"),
            ("*", "*"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("*.shop", "*.shop"),
        ] {
            assert_eq!(&*full_name(&host.into(), "shop", "cluster.local"), expected);
        }
    }

    #[test]
    fn patterns_hold_what_they_say() {
        let patterns: Vec<_> = patterns("a.foo.com").collect();
        assert_eq!(patterns, ["a.foo.com", "*.foo.com", "*.com", "*"]);
        for pattern in &patterns {
            assert!(holds(pattern, "a.foo.com"), "{pattern}");
        }
        for (pattern, host) in
            [("*.foo.com", "foo.com"), ("a.foo.com", "*.foo.com"), ("*.foo.com", "barfoo.com")]
        {
            assert!(!holds(pattern, host), "{pattern} {host}");
        }
        assert_eq!(super::patterns("*.foo.com").collect::<Vec<_>>(), ["*.foo.com", "*.com", "*"]);
        assert!(holds("*.foo.com", "a.b.foo.com"));
    }
}
