//! Resolved PeerAuthentications to and from the workload's extension.

use super::address::port_number;
use super::error::WireError;
use super::generated::warren as wire;
use crate::model::{MtlsRule, PeerAuthentication};

/// Nothing at all for what is the default.
pub(super) fn to_wire(model: &PeerAuthentication) -> Option<wire::PeerAuthentication> {
    (*model != PeerAuthentication::default()).then(|| wire::PeerAuthentication {
        all: Some(rule_to_wire(&model.all)),
        ports: model.ports.iter().map(|(port, rule)| (u32::from(*port), rule_to_wire(rule))).collect(),
    })
}

pub(super) fn from_wire(wire: Option<wire::PeerAuthentication>) -> Result<PeerAuthentication, WireError> {
    let Some(wire) = wire else { return Ok(PeerAuthentication::default()) };
    let port = |(number, rule)| Ok((port_number(number, "peer_authentication.ports")?, rule_from_wire(rule)));
    Ok(PeerAuthentication {
        all: wire.all.map(rule_from_wire).unwrap_or_default(),
        ports: wire.ports.into_iter().map(port).collect::<Result<_, WireError>>()?,
    })
}

fn rule_to_wire(rule: &MtlsRule) -> wire::MtlsRule {
    wire::MtlsRule { strict: rule.strict, rule: rule.rule.to_string() }
}

fn rule_from_wire(rule: wire::MtlsRule) -> MtlsRule {
    MtlsRule { strict: rule.strict, rule: rule.rule.into() }
}
