//! The interceptor between a manager and its store, which reports failures and traces every call.

use super::listener::Listener;
use crate::{
    Error, ErrorKind,
    store::{StoreCall, StoreInterceptor},
};

/// Reports failed store calls.
pub(super) struct Observer {
    listener: Listener,
}

impl Observer {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener }
    }

    fn report(&self, call: StoreCall<'_>, error: &Error) {
        // A rejected login is not a failure; the login reports it as a refusal.
        if error.kind() != ErrorKind::SessionLimit {
            let operation = call.operation.name();
            self.listener
                .failed(operation, call.user_id, call.token_id, error);
        }
    }
}

#[cfg(not(feature = "tracing"))]
impl StoreInterceptor for Observer {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        answer.await.inspect_err(|error| self.report(call, error))
    }

    fn intercept_now<T>(
        &self,
        call: StoreCall<'_>,
        answer: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        // Not `inspect_err`, which would move the outcome.
        let outcome = answer();
        if let Some(Err(error)) = &outcome {
            self.report(call, error);
        }
        outcome
    }
}

#[cfg(feature = "tracing")]
impl StoreInterceptor for Observer {
    async fn intercept<T: Send>(
        &self,
        call: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        use tracing::Instrument;

        let span = super::trace::StoreSpan::new(call);
        let outcome = answer.instrument(span.span().clone()).await;
        span.close(&outcome, |error| self.report(call, error));
        outcome
    }

    fn intercept_now<T>(
        &self,
        call: StoreCall<'_>,
        answer: impl FnOnce() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let start = std::time::Instant::now();
        // Without an outcome, the check has not run yet.
        let outcome = answer()?;
        let span = super::trace::StoreSpan::since(start, call);
        span.close(&outcome, |error| self.report(call, error));
        Some(outcome)
    }
}
