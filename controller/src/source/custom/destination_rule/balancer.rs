//! `loadBalancer`.

use super::super::MAX_TEXT;
use super::super::fields::{Fields, wrong};
use super::super::virtual_service::values::header_name;
use crate::objects::NoteKind;
use crate::source::ConvertError;
use std::sync::Arc;
use warren_common::model::traffic::{
    Balancer, HashKey, HashRing, LocalityBalancing, LocalityShare, RegionFailover, SimpleBalancer, Warmup,
};

const DEFAULT_RING: u32 = 1024;
const MAX_RING: u32 = 8 << 20;
const DEFAULT_TABLE: u32 = 65_537;
const MAX_TABLE: u32 = 5_000_011;

pub(super) fn balancer(mut fields: Fields<'_>) -> Result<Balancer, ConvertError> {
    use SimpleBalancer::{LeastRequest, Passthrough, Random, RoundRobin};
    let simple = fields.choice(
        "simple",
        &[
            ("UNSPECIFIED", LeastRequest),
            // Of old.
            ("LEAST_CONN", LeastRequest),
            ("RANDOM", Random),
            ("PASSTHROUGH", Passthrough),
            ("ROUND_ROBIN", RoundRobin),
            ("LEAST_REQUEST", LeastRequest),
        ],
    )?;
    let hash = fields.fields("consistentHash")?.map(hash).transpose()?;
    if simple.is_some() && hash.is_some() {
        return Err(wrong(fields.path(), "simple and consistentHash exclude each other"));
    }
    let old = fields.duration_ms("warmupDurationSecs", 1)?;
    if old.is_some() {
        fields.deprecated("warmupDurationSecs", "warmup.duration");
    }
    let warmup = match fields.fields("warmup")? {
        Some(mut warmup) => {
            let duration = warmup.duration_ms("duration", 1)?;
            Some(Warmup {
                duration_ms: duration.ok_or_else(|| warmup.wrong("duration", "it is missing"))?,
                minimum_percent: warmup.decimal("minimumPercent", 0.0, 100.0)?.unwrap_or(10.0),
                aggression: warmup.decimal("aggression", 1.0, 1000.0)?.unwrap_or(1.0),
            })
        }
        None => old.map(|duration_ms| Warmup { duration_ms, minimum_percent: 10.0, aggression: 1.0 }),
    };
    let locality = fields.fields("localityLbSetting")?.map(locality).transpose()?;
    Ok(Balancer { simple: simple.unwrap_or_default(), hash, warmup, locality })
}

fn hash(mut fields: Fields<'_>) -> Result<(HashKey, HashRing), ConvertError> {
    let mut keys = Vec::new();
    if let Some(name) = fields.text("httpHeaderName", MAX_TEXT)? {
        let name = header_name(&name, true).map_err(|reason| fields.wrong("httpHeaderName", reason))?;
        keys.push(HashKey::Header(name));
    }
    if let Some(mut cookie) = fields.fields("httpCookie")? {
        let name = cookie.required("name", MAX_TEXT)?;
        let is_token = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b);
        if !name.bytes().all(is_token) {
            return Err(cookie.wrong("name", format_args!("{name:?} is not the name of a cookie")));
        }
        let mut part = |name: &str| {
            let text = cookie.text(name, 1024)?;
            match text.as_deref().is_some_and(|text| text.contains([';', '\r', '\n'])) {
                true => Err(cookie.wrong(name, "it has no semicolon and no line break")),
                false => Ok(text),
            }
        };
        let path = part("path")?;
        let attributes = cookie.list("attributes", 16, |mut attribute| {
            let name = attribute.required("name", MAX_TEXT)?;
            let value = attribute.text("value", 1024)?.unwrap_or_default();
            if [&name, &value].into_iter().any(|text| text.contains([';', '\r', '\n'])) {
                return Err(wrong(attribute.path(), "it has no semicolon and no line break"));
            }
            Ok((name, value))
        })?;
        let ttl_s = cookie.duration_ms("ttl", 0)?.map(|ms| ms.div_ceil(1000));
        keys.push(HashKey::Cookie { name, path, ttl_s, attributes });
    }
    keys.extend(fields.flag("useSourceIp")?.unwrap_or_default().then_some(HashKey::SourceIp));
    keys.extend(fields.text("httpQueryParameterName", MAX_TEXT)?.map(HashKey::Query));
    let (Some(key), None) = (keys.pop(), keys.pop()) else {
        let reason =
            "it needs exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName";
        return Err(wrong(fields.path(), reason));
    };
    // 0 is none, as in all of these.
    let size = |fields: &mut Fields<'_>, name: &str, max: u32| {
        Ok::<_, ConvertError>(fields.number32(name, max)?.filter(|size| *size > 0))
    };
    let legacy = size(&mut fields, "minimumRingSize", MAX_RING)?;
    if legacy.is_some() {
        fields.deprecated("minimumRingSize", "ringHash.minimumRingSize");
    }
    let ring = fields.fields("ringHash")?;
    let maglev = fields.fields("maglev")?;
    let ring = match (ring, maglev) {
        (Some(_), Some(_)) => return Err(wrong(fields.path(), "ringHash and maglev exclude each other")),
        (Some(_), None) | (None, Some(_)) if legacy.is_some() => {
            return Err(fields.wrong("minimumRingSize", "it excludes ringHash and maglev; leave it out"));
        }
        (None, Some(mut maglev)) => {
            let size = size(&mut maglev, "tableSize", MAX_TABLE)?.unwrap_or(DEFAULT_TABLE);
            if !is_prime(size) {
                return Err(maglev.wrong("tableSize", format_args!("{size} is not a prime")));
            }
            HashRing::Maglev { size }
        }
        (Some(mut ring), None) => {
            HashRing::Ring { minimum: size(&mut ring, "minimumRingSize", MAX_RING)?.unwrap_or(DEFAULT_RING) }
        }
        (None, None) => HashRing::Ring { minimum: legacy.unwrap_or(DEFAULT_RING) },
    };
    Ok((key, ring))
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..).take_while(|n| n * n <= number).all(|n| !number.is_multiple_of(n))
}

fn locality(mut fields: Fields<'_>) -> Result<LocalityBalancing, ConvertError> {
    let distribute = fields.list("distribute", 256, |mut entry| {
        let from = entry.required("from", MAX_TEXT)?;
        let to = entry.entries("to", 256, |path, key, value| {
            let weight = value.as_u64().and_then(|weight| u32::try_from(weight).ok());
            let weight = weight.filter(|weight| (1..=100).contains(weight));
            Ok((Arc::from(key), weight.ok_or_else(|| wrong(path, "not a whole number from 1 to 100"))?))
        })?;
        let sum: u32 = to.iter().map(|(_, weight)| weight).sum();
        if sum != 100 {
            return Err(entry.wrong("to", format_args!("the sum of the weights is {sum}, not 100")));
        }
        Ok(LocalityShare { from, to: to.into_iter().collect() })
    })?;
    let failover = fields.list("failover", 256, |mut entry| {
        let (from, to) = (entry.required("from", MAX_TEXT)?, entry.required("to", MAX_TEXT)?);
        if from == to || [&from, &to].into_iter().any(|region| region.contains(['/', '*'])) {
            return Err(wrong(entry.path(), "from and to are two different regions"));
        }
        Ok(RegionFailover { from, to })
    })?;
    let failover_priority = fields.texts("failoverPriority", 64, MAX_TEXT)?;
    if !(distribute.is_empty() || failover.is_empty() && failover_priority.is_empty()) {
        return Err(wrong(fields.path(), "distribute excludes failover and failoverPriority"));
    }
    if !(failover.is_empty() || failover_priority.is_empty()) {
        fields.note(fields.at("failover"), NoteKind::Unsupported("failoverPriority says where to go"));
    }
    let enabled = fields.flag("enabled")?.unwrap_or(true);
    Ok(LocalityBalancing { enabled, distribute, failover, failover_priority })
}
