//! Istio's samples as they are, put in force as `kubectl apply -f` would.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use warren_tests::lab::{Lab, marker, object, poll_until};
use warren_tests::shared::directory;

/// A change takes effect within a second; a busy machine may be slower.
const SOON: Duration = Duration::from_secs(20);

/// The text of a file of what is not part of the project.
pub(crate) fn text(file: &str) -> Result<String> {
    let path = directory().join(file);
    fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
}

/// Its objects.
pub(crate) fn objects(text: &str) -> Result<Vec<Value>> {
    let documents = text.split("\n---").map(str::trim).filter(|document| !document.is_empty());
    let parsed = documents.map(|document| serde_saphyr::from_str(document).context("not YAML"));
    parsed.filter(|value| !matches!(value, Ok(Value::Null))).collect()
}

/// Puts these objects in force, and nothing that was there before: a later one replaces an earlier one of its kind and name.
/// Both nodes have them when this returns.
pub(crate) fn apply(lab: &Lab, texts: &[String]) -> Result<()> {
    let mut all = BTreeMap::new();
    for text in texts {
        for object in objects(text)? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            all.insert((object["kind"].to_string(), name), object);
        }
    }
    // Comes with them, and so is in force when they are.
    let mark = format!("{:016x}", rand::random::<u64>());
    let spec = json!({ "hosts": ["marker"], "http": [marker(&mark)] });
    let with_mark = object("VirtualService", "marker", &spec);
    let documents: Vec<_> = all.values().chain([&with_mark]).map(Value::to_string).collect();
    lab.write_manifest("samples.yaml", &documents.join("\n---\n"))?;
    for pod in ["client", "far-client"] {
        let url = format!("http://marker:9080/{mark}");
        poll_until(&format!("{pod} to see the change"), SOON, || {
            (lab.pod(pod).curl_status(["-m", "5", &url]).ok()? == "299").then_some(())
        })?;
    }
    Ok(())
}

/// The same with files of bookinfo.
pub(crate) fn apply_files(lab: &Lab, files: &[&str]) -> Result<()> {
    let text = |file: &&str| text(&format!("samples/bookinfo/{file}.yaml"));
    apply(lab, &files.iter().map(text).collect::<Result<Vec<_>>>()?)
}
