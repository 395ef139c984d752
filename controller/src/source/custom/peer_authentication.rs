//! `security.istio.io/PeerAuthentication`.

use super::{Custom, MatchLabels, selector_labels};
use crate::objects::{self, MtlsMode, Object};
use crate::source::ConvertError;
use crate::source::convert::invalid;
use serde::Deserialize;
use std::collections::BTreeMap;

/// As the API server hands it out.
pub(in crate::source) type PeerAuthentication = Custom<Spec>;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct Spec {
    selector: Option<MatchLabels>,
    mtls: Option<Mtls>,
    port_level_mtls: Option<BTreeMap<String, Mtls>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mtls {
    mode: Option<Mode>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl TryFrom<PeerAuthentication> for Object {
    type Error = ConvertError;

    fn try_from(object: PeerAuthentication) -> Result<Self, ConvertError> {
        let spec = object.spec.unwrap_or_default();
        let selector =
            selector_labels(spec.selector.unwrap_or_default().match_labels, "spec.selector.matchLabels")?;
        let mut ports = BTreeMap::new();
        for (port, mtls) in spec.port_level_mtls.iter().flatten() {
            let number = port.parse().ok().filter(|number| *number != 0);
            let number =
                number.ok_or_else(|| invalid("spec.portLevelMtls", port, "a port number (1 to 65535)"))?;
            ports.insert(number, mode(mtls));
        }
        if spec.port_level_mtls.is_some() && selector.is_empty() {
            return Err(ConvertError::Contradiction("spec.portLevelMtls needs a selector with labels"));
        }
        Ok(Self::PeerAuthentication(objects::PeerAuthentication {
            name: object.metadata.name()?,
            created: object.metadata.created()?,
            selector,
            mode: spec.mtls.as_ref().map(mode).unwrap_or_default(),
            ports,
        }))
    }
}

fn mode(mtls: &Mtls) -> MtlsMode {
    match mtls.mode {
        None | Some(Mode::Unset) => MtlsMode::Unset,
        Some(Mode::Disable) => MtlsMode::Disable,
        Some(Mode::Permissive) => MtlsMode::Permissive,
        Some(Mode::Strict) => MtlsMode::Strict,
    }
}
