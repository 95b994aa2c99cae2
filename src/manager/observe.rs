//! The interceptor between a manager and its store, which reports failures and traces every call.

use super::listener::Listener;
use crate::{
    Error, ErrorKind,
    store::{Operation, StoreInterceptor},
};

/// Reports failed store calls.
pub(super) struct Observer {
    listener: Listener,
}

impl Observer {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener }
    }

    fn report(&self, operation: Operation<'_>, error: &Error) {
        // A rejected login is not a failure; the login reports it as a refusal.
        if error.kind() != ErrorKind::SessionLimit {
            let Operation {
                name,
                user_id,
                token_id,
            } = operation;
            self.listener.failed(name, user_id, token_id, error);
        }
    }
}

#[cfg(not(feature = "tracing"))]
impl StoreInterceptor for Observer {
    async fn intercept<T: Send>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        call.await
            .inspect_err(|error| self.report(operation, error))
    }

    fn intercept_now<T>(
        &self,
        operation: Operation<'_>,
        call: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        // Not `inspect_err`, which would move the outcome.
        let outcome = call();
        if let Some(Err(error)) = &outcome {
            self.report(operation, error);
        }
        outcome
    }
}

#[cfg(feature = "tracing")]
impl StoreInterceptor for Observer {
    async fn intercept<T: Send>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        use tracing::Instrument;

        let span = super::trace::StoreSpan::new(operation);
        let outcome = call.instrument(span.span().clone()).await;
        span.close(&outcome, |error| self.report(operation, error));
        outcome
    }

    fn intercept_now<T>(
        &self,
        operation: Operation<'_>,
        call: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let start = std::time::Instant::now();
        // Without an outcome, the check has not run yet.
        let outcome = call()?;
        let span = super::trace::StoreSpan::since(start, operation);
        span.close(&outcome, |error| self.report(operation, error));
        Some(outcome)
    }
}
