//! What a rule for requests says beside where they go: retries, faults, mirrors, CORS.

use super::super::MAX_TEXT;
use super::super::fields::{Fields, wrong};
use super::values::{header_name, target, text_match};
use crate::objects::{Mirrors, NoteKind};
use crate::source::ConvertError;
use std::sync::Arc;
use warren_common::model::traffic::{Cors, Fault, FaultAbort, FaultDelay, Retries, RetryOn, TextMatch};

/// Envoy's and Istio's first pause.
const BACKOFF_MS: u64 = 25;
/// What is retried when nothing is said: what the application cannot have seen.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// As Istio's mesh has it.
const DEFAULT_ATTEMPTS: u32 = 2;
const MAX_ATTEMPTS: u32 = 100;

/// What holds when nothing is said about retries.
pub(in crate::source::custom) fn default_retries() -> Retries {
    Retries {
        attempts: DEFAULT_ATTEMPTS,
        per_try_timeout_ms: None,
        on: RETRY_ON.split(',').filter_map(|word| retry_on(word).flatten()).collect(),
        backoff_ms: BACKOFF_MS,
        other_endpoints: true,
    }
}

pub(super) fn retries(mut fields: Fields<'_>) -> Result<Retries, ConvertError> {
    let attempts = fields.number32("attempts", MAX_ATTEMPTS)?.unwrap_or_default();
    let per_try_timeout_ms = fields.duration_ms("perTryTimeout", 1)?;
    let said = fields.text("retryOn", 1024)?;
    let (remote, previous) =
        (fields.flag("retryRemoteLocalities")?, fields.flag("retryIgnorePreviousHosts")?);
    let backoff_ms = fields.duration_ms("backoff", 1)?;
    let others = per_try_timeout_ms.is_some() || said.is_some() || backoff_ms.is_some();
    if attempts == 0 && (others || remote.is_some() || previous.is_some()) {
        return Err(fields.wrong("attempts", "with 0 attempts nothing else about retries counts"));
    }
    if remote == Some(true) {
        let why = "every endpoint that is left is tried, wherever it is";
        fields.note(fields.at("retryRemoteLocalities"), NoteKind::Unsupported(why));
    }
    let mut on = Vec::new();
    let text = said.as_deref().unwrap_or(RETRY_ON);
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match retry_on(word) {
            Some(Some(condition)) if !on.contains(&condition) => on.push(condition),
            Some(Some(_)) => {}
            // It says that numbers count, which they do anyhow.
            Some(None) if word == "retriable-status-codes" => {}
            Some(None) => {
                let why = "retries after headers, rate limits and over HTTP/3 are not known";
                fields.note(fields.at("retryOn"), NoteKind::Unsupported(why));
            }
            None => {
                return Err(
                    fields.wrong("retryOn", format_args!("{word:?} is not known, nor an HTTP status"))
                );
            }
        }
    }
    Ok(Retries {
        attempts,
        per_try_timeout_ms,
        on,
        backoff_ms: backoff_ms.unwrap_or(BACKOFF_MS),
        other_endpoints: previous.unwrap_or(true),
    })
}

/// None: no such word; Some(None): one that means nothing here.
fn retry_on(word: &str) -> Option<Option<RetryOn>> {
    Some(Some(match word {
        "5xx" => RetryOn::ServerError,
        "gateway-error" => RetryOn::GatewayError,
        "reset" => RetryOn::Reset,
        "reset-before-request" => RetryOn::ResetBeforeRequest,
        "connect-failure" => RetryOn::ConnectFailure,
        "retriable-4xx" => RetryOn::Retriable4xx,
        "refused-stream" => RetryOn::RefusedStream,
        "cancelled" => RetryOn::Grpc(1),
        "deadline-exceeded" => RetryOn::Grpc(4),
        "resource-exhausted" => RetryOn::Grpc(8),
        "internal" => RetryOn::Grpc(13),
        "unavailable" => RetryOn::Grpc(14),
        "retriable-status-codes"
        | "retriable-headers"
        | "envoy-ratelimited"
        | "http3-post-connect-failure" => {
            return Some(None);
        }
        number => {
            let status = number.parse::<u16>().ok().filter(|status| (100..=599).contains(status))?;
            RetryOn::Status(status)
        }
    }))
}

pub(super) fn fault(mut fields: Fields<'_>) -> Result<Fault, ConvertError> {
    let delay = match fields.fields("delay")? {
        None => None,
        Some(mut delay) => {
            let per_million = share(&mut delay)?;
            delay.unsupported("exponentialDelay", "Istio has never had it either");
            let fixed = delay.duration_ms("fixedDelay", 1)?;
            let delay_ms = fixed.ok_or_else(|| delay.wrong("fixedDelay", "it is missing"))?;
            Some(FaultDelay { delay_ms, per_million })
        }
    };
    let abort = match fields.fields("abort")? {
        None => None,
        Some(mut abort) => {
            let per_million = share(&mut abort)?;
            abort.unsupported("http2Error", "Istio has never had it either");
            let status = abort.number("httpStatus", 200, 599)?;
            let grpc = abort.text("grpcStatus", 64)?;
            let (http_status, grpc_status) = match (status, grpc) {
                (Some(status), None) => (status as u16, None),
                (None, Some(name)) => {
                    let known = GRPC.iter().position(|known| **known == *name);
                    let code = known.ok_or_else(|| {
                        abort.wrong(
                            "grpcStatus",
                            format_args!("{name:?} is not a gRPC status such as UNAVAILABLE"),
                        )
                    })?;
                    (200, Some(code as u8))
                }
                _ => return Err(wrong(abort.path(), "it needs exactly one of httpStatus and grpcStatus")),
            };
            Some(FaultAbort { http_status, grpc_status, per_million })
        }
    };
    if delay.is_none() && abort.is_none() {
        return Err(wrong(fields.path(), "it needs delay, abort or both"));
    }
    Ok(Fault { delay, abort })
}

/// By code.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Without a percentage: never, as Istio has it.
fn share(fields: &mut Fields<'_>) -> Result<u32, ConvertError> {
    let whole = fields.number("percent", 0, 100)?;
    if whole.is_some() {
        fields.deprecated("percent", "percentage");
    }
    let percentage = fields.percentage("percentage")?;
    if percentage.is_none() && whole.is_none() {
        let why = "without a percentage it happens to no request, as in Istio";
        fields.note(fields.path().to_owned(), NoteKind::Unsupported(why));
    }
    Ok(percentage.or(whole.map(|percent| percent as u32 * 10_000)).unwrap_or_default())
}

/// `mirror` with `mirrorPercentage`, and `mirrors`.
pub(super) fn mirrors(rule: &mut Fields<'_>) -> Result<Mirrors, ConvertError> {
    let whole = rule.number("mirrorPercent", 0, 100)?;
    if whole.is_some() {
        rule.deprecated("mirrorPercent", "mirrorPercentage");
    }
    let percentage = rule.percentage("mirrorPercentage")?;
    let share = percentage.or(whole.map(|percent| percent as u32 * 10_000));
    let one = rule.fields("mirror")?.map(target).transpose()?;
    let several = rule.list("mirrors", 64, |mut entry| {
        let to = entry.fields("destination")?.ok_or_else(|| entry.wrong("destination", "it is missing"))?;
        Ok((target(to)?, entry.percentage("percentage")?.unwrap_or(Mirrors::ALL)))
    })?;
    Ok(Mirrors { one, share, several })
}

pub(super) fn cors(mut fields: Fields<'_>) -> Result<Cors, ConvertError> {
    let mut origins = fields.list("allowOrigins", 256, |entry| {
        Ok(match text_match(entry)? {
            TextMatch::Exact(text) if *text == *"*" => TextMatch::Present,
            other => other,
        })
    })?;
    let old = fields.texts("allowOrigin", 256, 1024)?;
    if !old.is_empty() {
        fields.deprecated("allowOrigin", "allowOrigins");
        let of = |text: Arc<str>| if *text == *"*" { TextMatch::Present } else { TextMatch::Exact(text) };
        origins.extend(old.into_iter().map(of));
    }
    let methods = fields.texts("allowMethods", 64, 64)?;
    let mut names = |name: &str| -> Result<Vec<Arc<str>>, ConvertError> {
        let texts = fields.texts(name, 256, MAX_TEXT)?;
        if let Some(bad) = texts.iter().find(|text| ***text != *"*" && header_name(text, true).is_err()) {
            return Err(fields.wrong(name, format_args!("{bad:?} is not the name of a header")));
        }
        Ok(texts)
    };
    let (headers, expose) = (names("allowHeaders")?, names("exposeHeaders")?);
    if let Some(bad) = methods.iter().find(|text| !text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'*'))
    {
        return Err(fields.wrong("allowMethods", format_args!("{bad:?} is not a method")));
    }
    let max_age_s = fields.duration_ms("maxAge", 1)?.map(|ms| ms / 1000);
    let forward = fields
        .choice("unmatchedPreflights", &[("UNSPECIFIED", true), ("FORWARD", true), ("IGNORE", false)])?;
    Ok(Cors {
        origins,
        methods,
        headers,
        expose,
        max_age_s,
        credentials: fields.flag("allowCredentials")?.unwrap_or_default(),
        forward_unmatched: forward.unwrap_or(true),
        gateway_api: false,
    })
}
