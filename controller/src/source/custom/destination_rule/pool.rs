//! `connectionPool` and `outlierDetection`.

use super::super::fields::Fields;
use crate::source::ConvertError;
use warren_common::model::traffic::{ConnectionPool, Outliers};

pub(super) fn pool(mut fields: Fields<'_>) -> Result<ConnectionPool, ConvertError> {
    let mut pool = ConnectionPool::default();
    if let Some(mut tcp) = fields.fields("tcp")? {
        pool.max_connections = limit(&mut tcp, "maxConnections")?;
        pool.connect_timeout_ms = tcp.duration_ms("connectTimeout", 1)?;
        pool.max_connection_duration_ms = tcp.duration_ms("maxConnectionDuration", 1)?;
        pool.idle_timeout_ms = tcp.duration_ms("idleTimeout", 0)?;
        if let Some(mut alive) = tcp.fields("tcpKeepalive")? {
            // Linux's own defaults.
            let seconds = |ms: u64| u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX);
            pool.keepalive = Some((
                limit(&mut alive, "probes")?.unwrap_or(9),
                alive.duration_ms("time", 1)?.map_or(7200, seconds),
                alive.duration_ms("interval", 1)?.map_or(75, seconds),
            ));
        }
    }
    if let Some(mut http) = fields.fields("http")? {
        pool.max_pending_requests = limit(&mut http, "http1MaxPendingRequests")?;
        pool.max_requests = limit(&mut http, "http2MaxRequests")?;
        pool.max_requests_per_connection = limit(&mut http, "maxRequestsPerConnection")?;
        pool.max_retries = limit(&mut http, "maxRetries")?;
        pool.http_idle_timeout_ms = http.duration_ms("idleTimeout", 1)?;
        pool.max_concurrent_streams = limit(&mut http, "maxConcurrentStreams")?;
        let policies = [("DEFAULT", false), ("DO_NOT_UPGRADE", false), ("UPGRADE", true)];
        pool.upgrade_to_h2 = http.choice("h2UpgradePolicy", &policies)?.unwrap_or_default();
        pool.use_client_protocol = http.flag("useClientProtocol")?.unwrap_or_default();
        http.unsupported("http2KeepAlive", "connections are kept alive by the tunnel");
        if pool.upgrade_to_h2 && pool.use_client_protocol {
            return Err(http.wrong("useClientProtocol", "it excludes h2UpgradePolicy: UPGRADE"));
        }
    }
    Ok(pool)
}

/// 0 is none.
fn limit(fields: &mut Fields<'_>, name: &str) -> Result<Option<u32>, ConvertError> {
    Ok(fields.number32(name, i32::MAX as u32)?.filter(|number| *number > 0))
}

pub(super) fn outliers(mut fields: Fields<'_>) -> Result<Outliers, ConvertError> {
    let old = limit(&mut fields, "consecutiveErrors")?;
    if old.is_some() {
        fields.deprecated("consecutiveErrors", "consecutive5xxErrors or consecutiveGatewayErrors");
    }
    let split = fields.flag("splitExternalLocalOriginErrors")?.unwrap_or_default();
    let local = limit(&mut fields, "consecutiveLocalOriginFailures")?;
    if local.is_some() && !split {
        let reason = "it needs splitExternalLocalOriginErrors: true";
        return Err(fields.wrong("consecutiveLocalOriginFailures", reason));
    }
    let of_5xx = fields.number32("consecutive5xxErrors", u32::MAX)?;
    let gateway = fields.number32("consecutiveGatewayErrors", u32::MAX)?;
    let mut percent = |name: &str| fields.number32(name, 100);
    let (max_ejection, min_health) = (percent("maxEjectionPercent")?, percent("minHealthPercent")?);
    fields.unsupported("outlierDetectionHttpErrorCodes", "all of 5xx count");
    Ok(Outliers {
        consecutive_5xx: of_5xx.unwrap_or(5),
        consecutive_gateway: gateway.or(old).unwrap_or(0),
        consecutive_local: split.then_some(local.unwrap_or(5)),
        interval_ms: fields.duration_ms("interval", 1)?.unwrap_or(10_000),
        base_ejection_ms: fields.duration_ms("baseEjectionTime", 1)?.unwrap_or(30_000),
        // 0 is none here, too; of the numbers of errors it is never.
        max_ejection_percent: max_ejection.filter(|percent| *percent > 0).unwrap_or(10) as u8,
        min_health_percent: min_health.unwrap_or(0) as u8,
    })
}
