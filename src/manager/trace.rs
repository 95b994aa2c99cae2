//! What `tracing` gets to see: never a token.

use std::{error::Error as _, time::Instant};

use tracing::{Instrument, Span, debug, debug_span, field::Empty, info, warn};

use super::Event;
use crate::{
    Error,
    store::{AroundStore, Operation},
};

/// A span around every call of the store.
pub(super) struct Spans;

impl AroundStore for Spans {
    async fn around<T: Send>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let (span, start) = (span(operation), Instant::now());
        let outcome = call.instrument(span.clone()).await;
        close(&span, operation, start, &outcome);
        outcome
    }

    fn around_now<T>(
        &self,
        operation: Operation<'_>,
        call: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let start = Instant::now();
        // If there is no outcome, then nothing has happened yet.
        let outcome = call()?;
        close(&span(operation), operation, start, &outcome);
        Some(outcome)
    }
}

fn span(operation: Operation<'_>) -> Span {
    debug_span!(
        "session_store",
        operation = operation.name,
        user.id = operation.user_id,
        outcome = Empty,
        latency_us = Empty,
    )
}

fn close<T>(span: &Span, operation: Operation<'_>, start: Instant, outcome: &Result<T, Error>) {
    span.record("latency_us", start.elapsed().as_micros() as u64);
    let verdict = match outcome {
        Ok(_) => "ok",
        Err(error) if error.is_fault() => "fault",
        // Such as at the session limit.
        Err(_) => "refused",
    };
    span.record("outcome", verdict);
    if let Err(error) = outcome
        && error.is_fault()
    {
        let cause = error.source().map(tracing::field::display);
        let (operation, kind) = (operation.name, error.kind());
        warn!(parent: span, operation, ?kind, cause, "{error}");
    }
}

pub(super) fn event(event: &Event<'_>) {
    match *event {
        Event::LoggedIn {
            user_id, token_id, ..
        } => info!(user.id = user_id, token.id = %token_id, "logged in"),
        Event::Evicted { user_id, token_id } => {
            info!(user.id = user_id, token.id = %token_id, "evicted by another login");
        }
        Event::Refreshed { user_id, token_id } => {
            debug!(user.id = user_id, token.id = %token_id, "refreshed");
        }
        Event::LoggedOut { user_id, token_id } => {
            info!(user.id = user_id, token.id = %token_id, "logged out");
        }
        Event::LoggedOutAll {
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
        Event::Refused {
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
    }
}
