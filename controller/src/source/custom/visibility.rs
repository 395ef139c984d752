//! `exportTo`: for which namespaces an object is.

use super::fields::Fields;
use crate::source::ConvertError;
use std::sync::Arc;

/// The namespaces; none: all of them. `own` is the object's.
pub(super) fn exported_to(
    spec: &mut Fields<'_>,
    own: &Arc<str>,
    forced: bool,
) -> Result<Option<Vec<Arc<str>>>, ConvertError> {
    const FIELD: &str = "exportTo";
    let texts = spec.texts(FIELD, 256, 63)?;
    let mut namespaces: Vec<Arc<str>> = Vec::new();
    let mut everywhere = texts.is_empty();
    for text in &texts {
        let namespace = match &**text {
            "*" | "~" if texts.len() > 1 => {
                return Err(spec.wrong(FIELD, format_args!("{text:?} stands alone, or not at all")));
            }
            "*" => {
                everywhere = true;
                continue;
            }
            "~" => continue,
            "." => own.clone(),
            name if !name.is_empty() && !name.contains(['*', '/', '.']) => text.clone(),
            other => {
                let reason = format!("{other:?} is not a namespace, \".\", \"*\" or \"~\"");
                return Err(spec.wrong(FIELD, reason));
            }
        };
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    if forced {
        return Ok(Some(vec![own.clone()]));
    }
    namespaces.sort();
    Ok((!everywhere).then_some(namespaces))
}
