//! Spans and events for `tracing`, which never contain a token.

use std::{error::Error as _, time::Instant};

use tracing::{Span, debug, debug_span, field::Empty, info, warn};

use super::{Event, EventKind};
use crate::{Error, store::StoreCall};

/// The span of one store call.
pub(super) struct StoreSpan {
    span: Span,
    start: Instant,
}

impl StoreSpan {
    pub(super) fn new(call: StoreCall<'_>) -> Self {
        Self::since(Instant::now(), call)
    }

    /// The span of a call that began at `start`.
    pub(super) fn since(start: Instant, call: StoreCall<'_>) -> Self {
        let span = debug_span!(
            "session_store",
            operation = call.operation.name(),
            user.id = call.user_id,
            outcome = Empty,
            latency_us = Empty,
        );
        Self { span, start }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Records the outcome; calls `report` within the span if the call failed.
    pub(super) fn close<T>(self, outcome: &Result<T, Error>, report: impl FnOnce(&Error)) {
        let latency = self.start.elapsed().as_micros() as u64;
        self.span.record("latency_us", latency);
        let verdict = match outcome {
            Ok(_) => "ok",
            Err(error) if error.is_fault() => "fault",
            // For example at the session limit.
            Err(_) => "refused",
        };
        self.span.record("outcome", verdict);
        if let Err(error) = outcome {
            self.span.in_scope(|| report(error));
        }
    }
}

pub(super) fn event(event: &Event<'_>) {
    match event.kind() {
        EventKind::LoggedIn {
            user_id, token_id, ..
        } => info!(user.id = user_id, token.id = %token_id, "logged in"),
        EventKind::Evicted { user_id, token_id } => {
            info!(user.id = user_id, token.id = %token_id, "evicted by another login");
        }
        EventKind::Refreshed { user_id, token_id } => {
            debug!(user.id = user_id, token.id = %token_id, "refreshed");
        }
        EventKind::Authenticated { user_id, token_id } => {
            info!(user.id = user_id, token.id = %token_id, "authenticated again");
        }
        EventKind::Replaced {
            user_id, token_id, ..
        } => info!(user.id = user_id, token.id = %token_id, "token replaced"),
        EventKind::Reused { user_id, token_id } => {
            warn!(user.id = user_id, token.id = %token_id, "ended because a replaced token was reused");
        }
        EventKind::LoggedOut { user_id, token_id } => {
            info!(user.id = user_id, token.id = %token_id, "logged out");
        }
        EventKind::LoggedOutAll {
            user_id,
            kept,
            sessions,
        } => {
            let kept = kept.map(tracing::field::display);
            info!(
                user.id = user_id,
                token.id = kept,
                sessions,
                "logged out everywhere"
            );
        }
        EventKind::Refused {
            user_id,
            token_id,
            reason,
        } => {
            let token_id = token_id.map(tracing::field::display);
            debug!(
                user.id = user_id,
                token.id = token_id,
                reason = reason.as_str(),
                "refused"
            );
        }
        EventKind::Failed {
            operation,
            user_id,
            token_id,
            error,
        } => {
            let (kind, token_id) = (error.kind(), token_id.map(tracing::field::display));
            let cause = error.source().map(tracing::field::display);
            warn!(
                operation,
                user.id = user_id,
                token.id = token_id,
                ?kind,
                cause,
                "{error}"
            );
        }
    }
}
