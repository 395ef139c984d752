//! What is told: one decision after the other, and what comes of them.

use crate::route::http::Refusal;
use warren_common::model::admin::{Transport, Verdict, WhyMark, WhyOutcome, WhyRow, WhyStep};

/// Rows of one step; of more, the first ones and the last ones are told.
const MAX_ROWS: usize = 60;
/// Rows that are told of the beginning, where there are too many.
const FIRST_ROWS: usize = 20;

/// What was told so far.
pub(super) struct Tale {
    pub(super) steps: Vec<WhyStep>,
    pub(super) outcome: WhyOutcome,
}

impl Tale {
    pub(super) fn new() -> Self {
        let outcome = WhyOutcome {
            text: String::new(),
            certain: true,
            route: None,
            objects: None,
            cluster: None,
            status: None,
            flag: None,
            location: None,
            endpoint: None,
            address: None,
            transport: Transport::None,
            verdict: Verdict::None,
            policy: None,
        };
        Self { steps: Vec::new(), outcome }
    }

    pub(super) fn step(&mut self, about: &str, text: impl Into<String>) {
        self.rows(about, text, Vec::new());
    }

    /// A step with what was decided among.
    pub(super) fn rows(&mut self, about: &str, text: impl Into<String>, mut rows: Vec<WhyRow>) {
        if rows.len() > MAX_ROWS {
            let left_out = rows.len() - MAX_ROWS;
            let note = row(WhyMark::Excluded, [format!("... {left_out} more ...")]);
            rows.splice(FIRST_ROWS..FIRST_ROWS + left_out, [note]);
        }
        self.steps.push(WhyStep { about: about.to_owned(), text: text.into(), rows });
    }

    pub(super) fn end(&mut self, text: impl Into<String>) {
        self.outcome.text = text.into();
    }

    /// The mesh answers.
    pub(super) fn answered(&mut self, status: u16, flag: Option<&str>, why: &str) {
        self.outcome.status = Some(status);
        self.outcome.flag = flag.map(str::to_owned);
        let flag = flag.map_or(String::new(), |flag| format!(", flag {flag}"));
        self.end(format!("answered by the client's agent: {status}{flag}, {why}"));
    }

    /// The mesh refuses, in the way of the client's protocol.
    pub(super) fn refused(&mut self, refusal: Refusal, is_grpc: bool, why: &str) {
        match is_grpc {
            true => {
                let why = format!("grpc-status {}: {why}", refusal.grpc_status);
                self.answered(200, Some(refusal.flag), &why);
            }
            false => self.answered(refusal.status, Some(refusal.flag), why),
        }
    }
}

pub(super) fn row<const N: usize>(mark: WhyMark, cells: [String; N]) -> WhyRow {
    WhyRow { mark, cells: cells.into() }
}
