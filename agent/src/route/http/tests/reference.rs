//! The router against a slow, obvious reading of the model: one rule after the other, one condition after the other.

use super::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// The rule and match that hold first, by the words of the reference alone.
fn slow(rules: &[HttpRule], asked: &Asked, client: &ClientView<'_>, port: u16) -> Option<(usize, usize)> {
    for (r, rule) in rules.iter().enumerate() {
        if rule.matches.is_empty() {
            return Some((r, 0));
        }
        for (m, wanted) in rule.matches.iter().enumerate() {
            let is_for = wanted.clients.hold(client.namespace, client.labels)
                && wanted.port.is_none_or(|wanted| wanted == port);
            if is_for && meets(wanted, asked) {
                return Some((r, m));
            }
        }
    }
    None
}

fn meets(wanted: &HttpMatch, asked: &Asked) -> bool {
    let fold = |text: &str| if wanted.ignore_path_case { text.to_lowercase() } else { text.to_owned() };
    let path = match &wanted.path {
        None => true,
        Some(PathMatch::Exact(text)) => fold(text) == fold(&asked.path),
        Some(PathMatch::Prefix(text)) => fold(&asked.path).starts_with(&fold(text)),
        Some(PathMatch::Segments(text)) => {
            format!("{}/", fold(&asked.path)).starts_with(&format!("{}/", fold(text).trim_end_matches('/')))
        }
        Some(PathMatch::Regex(text)) => full_match(text, &asked.path),
    };
    let one =
        |wanted: &Option<TextMatch>, value: &str| wanted.as_ref().is_none_or(|wanted| text(wanted, value));
    let header = |wanted: &HeaderMatch| {
        let all: Vec<_> =
            asked.headers.get_all(&*wanted.name).iter().map(|value| value.to_str().unwrap()).collect();
        let value = (!all.is_empty()).then(|| all.join(","));
        let holds = match (&wanted.value, value) {
            (TextMatch::Present, value) => value.is_some(),
            (wanted_value, None) => wanted.not && text(wanted_value, ""),
            (wanted_value, Some(value)) => text(wanted_value, &value),
        };
        holds != wanted.not
    };
    let parameter = |wanted: &QueryMatch| {
        let pairs = asked
            .query
            .as_deref()
            .unwrap_or("")
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut of_name = pairs.filter(|(key, _)| *key == &*wanted.name);
        asked.query.is_some() && of_name.next().is_some_and(|(_, value)| text(&wanted.value, value))
    };
    path && one(&wanted.method, &asked.method)
        && one(&wanted.scheme, &asked.scheme)
        && one(&wanted.authority, &asked.authority)
        && wanted.headers.iter().all(header)
        && wanted.query.iter().all(parameter)
}

fn text(wanted: &TextMatch, value: &str) -> bool {
    match wanted {
        TextMatch::Present => true,
        TextMatch::Exact(text) => **text == *value,
        TextMatch::Prefix(text) => value.starts_with(&**text),
        TextMatch::Regex(text) => full_match(text, value),
    }
}

/// The longest leftmost match is not all there is to it: some match has to be all of the text.
fn full_match(pattern: &str, value: &str) -> bool {
    regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value)
}

// Few letters, so that much of it collides.
const PATHS: &str = "(/(a|b|A|ab|abc|c)){0,3}/?";
const VALUES: &str = "(a|b|ab){0,2}";

fn patterns() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(vec![".*", "a.*", "a|b", "/a/.*", "(/a)+/?", "/.+b", "[ab]{2}", ""])
        .prop_map(Into::into)
}

fn arc(pattern: &'static str) -> impl Strategy<Value = Arc<str>> {
    pattern.prop_map(Into::into)
}

fn texts() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        Just(TextMatch::Present),
        arc(VALUES).prop_map(TextMatch::Exact),
        arc(VALUES).prop_map(TextMatch::Prefix),
        patterns().prop_map(TextMatch::Regex),
    ]
}

fn paths() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        3 => arc(PATHS).prop_map(PathMatch::Exact),
        4 => arc(PATHS).prop_map(PathMatch::Prefix),
        4 => arc(PATHS).prop_map(PathMatch::Segments),
        1 => patterns().prop_map(PathMatch::Regex),
    ]
}

fn clients() -> impl Strategy<Value = Clients> {
    prop_oneof![
        6 => Just(Clients::default()),
        1 => prop::sample::select(vec!["shop", "bank"]).prop_map(|name| Clients { namespaces: Some(vec![name.into()]), ..Clients::default() }),
        1 => prop::sample::select(vec!["web", "db"]).prop_map(|app| Clients { labels: labels(&[("app", app)]), ..Clients::default() }),
    ]
}

fn matches() -> impl Strategy<Value = HttpMatch> {
    let headers = ("[xy]", texts(), any::<bool>());
    let headers = headers.prop_map(|(name, value, not)| HeaderMatch { name: name.into(), value, not });
    let query = ("[pq]", texts()).prop_map(|(name, value)| QueryMatch { name: name.into(), value });
    let method = prop::sample::select(vec![is("GET"), begins("P"), like("GET|PUT")]);
    let conditions = (of(method), of(texts()), vec(headers, 0..2), vec(query, 0..2));
    // Most matches are a path alone, as in real life: those are the ones that are found by index.
    let conditions = prop_oneof![2 => Just((None, None, vec![], vec![])), 1 => conditions];
    let port = of(prop::sample::select(vec![80, 80, 81]));
    (prop::option::weighted(0.9, paths()), any::<bool>(), port, clients(), conditions).prop_map(
        |(path, ignore_path_case, port, clients, (method, authority, headers, query))| HttpMatch {
            path,
            ignore_path_case,
            port,
            clients,
            method,
            authority,
            headers,
            query,
            ..HttpMatch::default()
        },
    )
}

fn requests() -> impl Strategy<Value = Asked> {
    let headers = vec((prop::sample::select(vec!["x", "y"]), VALUES), 0..3);
    let pair = ("[pq]", VALUES).prop_map(|(name, value)| format!("{name}={value}"));
    let query = of(vec(pair, 0..3).prop_map(|pairs| pairs.join("&")));
    let method = prop::sample::select(vec!["GET", "PUT", "POST"]);
    // Every path begins with a slash, so that `/` is a prefix of it.
    (method, "[abA]{1,2}", "(/(a|b|A|ab|abc|c)){1,3}/?|/", query, headers).prop_map(
        |(method, authority, path, query, headers)| {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Asked { authority, path, query, ..Asked::new(&format!("{method} http://web/"), &headers) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the rules and the request: the same rule by the same match, or none by both.
    #[test]
    fn the_router_does_what_the_rules_say(
        rules in vec(vec(matches(), 0..4), 1..30),
        requests in vec(requests(), 1..20),
        namespace in prop::sample::select(vec!["shop", "bank"]),
        app in prop::sample::select(vec!["web", "db"]),
    ) {
        // The names say which rule and match it is.
        let named = |(r, matches): (usize, Vec<HttpMatch>)| {
            let named = |(m, wanted): (usize, HttpMatch)| HttpMatch { name: m.to_string().into(), ..wanted };
            rule(&r.to_string(), matches.into_iter().enumerate().map(named).collect())
        };
        let rules: Vec<_> = rules.into_iter().enumerate().map(named).collect();
        let labels = labels(&[("app", app)]);
        let client = ClientView { namespace, labels: &labels };
        let traffic = traffic(vec![table(RouteApi::Istio, rules.clone())]);
        let table = HttpTable::compile(&traffic, &client, 80, &Patterns::default()).unwrap();
        for asked in &requests {
            let expected = slow(&rules, asked, &client, 80).map(|(r, m)| match rules[r].matches.is_empty() {
                true => r.to_string(),
                false => format!("{r}.{m}"),
            });
            let Some(table) = &table else {
                prop_assert_eq!(&expected, &None);
                continue;
            };
            let routed = table.route(&asked.view()).map(|matched| matched.name.to_string());
            prop_assert_eq!(&routed, &expected, "{:?}", asked.path);
            let explained = table.explain(&asked.view()).matched.map(|matched| matched.name.to_string());
            prop_assert_eq!(&explained, &expected);
        }
    }
}
