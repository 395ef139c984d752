//! Our entry in a node's CNI configuration. Pure: a text in, a text out.
//!
//! Only what is ours changes; everything else stays to the byte. Adding and removing gives the text back as it was.

use crate::config::{Entry, PLUGIN};
use crate::span::{elements, members};
use serde::Deserialize;
use std::ops::Range;

/// Why a configuration is left alone.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// It is not JSON, or not what the specification says.
    #[error("it is not a valid CNI configuration: {0}")]
    Invalid(#[from] serde_json::Error),
    /// There is nobody to stand behind.
    #[error("it has no plugins")]
    Empty,
    /// Which of two entries counts is a matter of taste.
    #[error("it has {0:?} twice")]
    Twice(&'static str),
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    plugin: String,
}

#[derive(Deserialize)]
struct Conflist {
    plugins: Vec<Plugin>,
}

/// The list with our entry as its last; none when it is so already.
///
/// # Errors
/// [`ConflistError`]: the file must be left alone.
pub fn add(text: &str, entry: &Entry) -> Result<Option<String>, ConflistError> {
    let (_, plugins) = plugins(text)?;
    let is_last_alone = plugins.iter().position(|(ours, _)| *ours) == Some(plugins.len() - 1);
    let last = plugins.last().and_then(|(_, place)| text.get(place.clone())).unwrap_or_default();
    if is_last_alone
        && plugins.len() > 1
        && serde_json::from_str::<Entry>(last).is_ok_and(|last| last == *entry)
    {
        return Ok(None);
    }
    let without = remove(text)?.unwrap_or_else(|| text.to_owned());
    let (array, plugins) = self::plugins(&without)?;
    let first = plugins.first().map_or(array.start + 1, |(_, place)| place.start);
    let end = plugins.last().map(|(_, place)| place.end).ok_or(ConflistError::Empty)?;
    // Spaced as the first is.
    let space = without.get(array.start + 1..first).unwrap_or_default();
    let mut added = without.clone();
    added.insert_str(end, &format!(",{space}{}", serde_json::to_string(entry)?));
    Ok(Some(added))
}

/// The list without our entry; none when it has none.
///
/// # Errors
/// [`ConflistError`]: the file must be left alone.
pub fn remove(text: &str) -> Result<Option<String>, ConflistError> {
    let mut current = text.to_owned();
    loop {
        let (_, plugins) = plugins(&current)?;
        let Some(index) = plugins.iter().position(|(ours, _)| *ours) else {
            return Ok((current != text).then_some(current));
        };
        let place = |index: usize| plugins.get(index).map(|(_, place)| place.clone());
        let cut = match (index.checked_sub(1).and_then(place), place(index), place(index + 1)) {
            (Some(before), Some(ours), _) => before.end..ours.end,
            (None, Some(ours), Some(after)) => ours.start..after.start,
            // Ours is the only one: a list without plugins is none.
            _ => return Err(ConflistError::Empty),
        };
        current.replace_range(cut, "");
    }
}

/// A configuration of a single plugin as a list of it and our entry.
///
/// # Errors
/// [`ConflistError`]: the file must be left alone.
pub fn convert(text: &str, entry: &Entry) -> Result<String, ConflistError> {
    let _: Plugin = serde_json::from_str(text)?;
    let members = members(text);
    let value = |wanted: &str| {
        let place = members.iter().rev().find(|(key, _)| key == wanted).map(|(_, place)| place.clone());
        place.and_then(|place| text.get(place)).unwrap_or("\"\"")
    };
    let (version, name) = (value("cniVersion"), value("name"));
    let list = format!(
        "{{\n  \"cniVersion\": {version},\n  \"name\": {name},\n  \"plugins\": [\n    {}\n  ]\n}}\n",
        text.trim()
    );
    Ok(add(&list, entry)?.unwrap_or(list))
}

/// The place of the array of plugins, and for each whether it is ours and its own place.
#[allow(clippy::type_complexity)] // Two private values of one function.
fn plugins(text: &str) -> Result<(Range<usize>, Vec<(bool, Range<usize>)>), ConflistError> {
    // Refuses a second member of that name.
    let Conflist { plugins } = serde_json::from_str(text)?;
    let mut arrays = members(text).into_iter().filter(|(key, _)| key == "plugins");
    let (_, array) = arrays.next().ok_or(ConflistError::Empty)?;
    if arrays.next().is_some() {
        return Err(ConflistError::Twice("plugins"));
    }
    let places = elements(text, &array);
    if plugins.is_empty() || places.len() != plugins.len() {
        return Err(ConflistError::Empty);
    }
    let ours = plugins.into_iter().map(|plugin| plugin.plugin == PLUGIN);
    Ok((array, ours.zip(places).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "unknown": {"plugins": []},
  "plugins": [
    {
      "type": "flannel",
      "delegate": {"hairpinMode": true, "isDefaultGateway": true}
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"#;

    #[test]
    fn our_entry_is_the_last_and_the_rest_stays() {
        let added = add(FLANNEL, &Entry::default()).unwrap().unwrap();
        let value: Value = serde_json::from_str(&added).unwrap();
        assert_eq!(
            value["plugins"][2],
            json!({
                "type": "warren-cni", "socket": "/run/warren/cni.sock",
                "offline": "/var/lib/warren/cni.json", "namespace": "warren-system",
            })
        );
        assert!(added.starts_with(&FLANNEL[..FLANNEL.rfind("\n  ]").unwrap()]));
        assert!(added.contains("true } },\n    {\"type\":\"warren-cni\""));
        assert_eq!(add(&added, &Entry::default()).unwrap(), None, "twice");
        assert_eq!(remove(&added).unwrap().unwrap(), FLANNEL);
        assert_eq!(remove(FLANNEL).unwrap(), None);
    }

    #[test]
    fn an_entry_that_is_old_or_not_the_last_is_replaced() {
        let current = add(FLANNEL, &Entry::default()).unwrap().unwrap();
        let old = add(FLANNEL, &Entry { socket: "/old".into(), ..Entry::default() }).unwrap().unwrap();
        assert_eq!(add(&old, &Entry::default()).unwrap().as_ref(), Some(&current));
        let first = FLANNEL.replace("\"plugins\": [\n", "\"plugins\": [\n {\"type\":\"warren-cni\"},");
        let moved: Value = serde_json::from_str(&add(&first, &Entry::default()).unwrap().unwrap()).unwrap();
        assert_eq!(moved, serde_json::from_str::<Value>(&current).unwrap());
        let twice = add(&first, &Entry::default()).unwrap().unwrap();
        assert_eq!(twice.matches(PLUGIN).count(), 1);
    }

    #[test]
    fn what_is_broken_is_left_alone() {
        for text in [
            "",
            "{",
            "[]",
            r#"{"plugins":[]}"#,
            r#"{"plugins":[{}]}"#,
            r#"{"plugins":{"type":"x"}}"#,
            r#"{"plugins":[{"type":"x"}],"plugins":[{"type":"y"}]}"#,
            r#"{"plugins":[{"type":"warren-cni"}]}"#,
        ] {
            assert!(add(text, &Entry::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_single_plugin_becomes_a_list() {
        let conf = r#"{"cniVersion":"0.4.0","name":"mynet","type":"bridge","ipam":{"type":"host-local"}}"#;
        let list: Value = serde_json::from_str(&convert(conf, &Entry::default()).unwrap()).unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("mynet"), &json!("0.4.0")));
        assert_eq!(list["plugins"][0], serde_json::from_str::<Value>(conf).unwrap());
        assert_eq!(list["plugins"][1]["type"], PLUGIN);
        assert!(convert(r#"{"name":"x"}"#, &Entry::default()).is_err());
    }

    fn plugin() -> impl Strategy<Value = Value> {
        ("[a-z]{1,6}", ".{0,6}", any::<i64>()).prop_map(
            |(plugin, text, number)| json!({"type": plugin, "text": text, "list": [number, {"x": null}]}),
        )
    }

    proptest! {
        #[test]
        fn adding_and_removing_gives_back_the_same(
            plugins in proptest::collection::vec(plugin(), 1..4), name in ".{0,6}", pretty: bool,
        ) {
            let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins, "zone": {"a": []}});
            let text = if pretty { serde_json::to_string_pretty(&list) } else { serde_json::to_string(&list) }.unwrap();
            let added = add(&text, &Entry::default()).unwrap().unwrap();
            let value: Value = serde_json::from_str(&added).unwrap();
            prop_assert_eq!(value["plugins"].as_array().unwrap().len(), plugins.len() + 1);
            prop_assert_eq!(&value["plugins"][plugins.len()]["type"], PLUGIN);
            prop_assert_eq!(add(&added, &Entry::default()).unwrap(), None);
            prop_assert_eq!(remove(&added).unwrap(), Some(text));
        }

        #[test]
        fn nothing_panics(text in r#"[{}\[\]",:a]{0,60}"#) {
            let _ = add(&text, &Entry::default());
            let _ = convert(&text, &Entry::default());
        }
    }
}
