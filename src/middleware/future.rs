use std::{
    any::type_name,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    Rejection,
    attach::attach_session,
    hook::{OnRejection, PlainResponse},
    settings::PostProcess,
};
use crate::{
    Error, TokenManager,
    manager::{AuthOutcome, Verdict},
    store::{BoxFuture, Checked},
    token::ParsedToken,
};

pin_project! {
    /// The response future of [`SessionService`](super::SessionService).
    pub struct ResponseFuture<S, D, ReqBody, R = PlainResponse>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, D, ReqBody, R, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, D, ReqBody, R, F> {
        Checking {
            check: BoxFuture<'static, Option<Checked>>,
            pending: Option<Box<Pending<S, D, ReqBody, R>>>,
        },
        Waiting {
            outcome: BoxFuture<'static, Verdict<D>>,
            pending: Option<Box<Pending<S, D, ReqBody, R>>>,
        },
        Calling {
            #[pin]
            future: F,
            post: PostProcess<R>,
        },
        Refused {
            rejection: Option<Rejection>,
            post: PostProcess<R>,
        },
    }
}

/// A request that waits for its authentication, and the ready service to call with it.
///
/// Boxed, so that the response futures of requests that need not wait are small.
pub(super) struct Pending<S, D, ReqBody, R> {
    pub(super) service: S,
    pub(super) request: Request<ReqBody>,
    pub(super) token: ParsedToken,
    pub(super) manager: TokenManager<D>,
    pub(super) authenticate: Authenticate<D>,
    pub(super) post: PostProcess<R>,
}

/// [`TokenManager::authenticate`] as a pointer, so that the response future of a layer without sessions does not need
/// the bounds of that method.
type Authenticate<D> = fn(
    &TokenManager<D>,
    &ParsedToken,
    Result<Option<Checked>, Error>,
    Option<Duration>,
) -> AuthOutcome<D>;

impl<S, D, ReqBody, R> ResponseFuture<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn check(
        check: BoxFuture<'static, Option<Checked>>,
        pending: Box<Pending<S, D, ReqBody, R>>,
    ) -> Self {
        let pending = Some(pending);
        Self {
            state: State::Checking { check, pending },
        }
    }

    pub(super) fn wait(
        outcome: BoxFuture<'static, Verdict<D>>,
        pending: Box<Pending<S, D, ReqBody, R>>,
    ) -> Self {
        let pending = Some(pending);
        Self {
            state: State::Waiting { outcome, pending },
        }
    }

    pub(super) fn call(future: S::Future, post: PostProcess<R>) -> Self {
        Self {
            state: State::Calling { future, post },
        }
    }

    pub(super) fn refuse(rejection: Rejection, post: PostProcess<R>) -> Self {
        let rejection = Some(rejection);
        Self {
            state: State::Refused { rejection, post },
        }
    }
}

impl<S, D, ReqBody, R, ResBody> Future for ResponseFuture<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    D: Send + Sync + 'static,
    R: OnRejection<ResBody>,
{
    type Output = Result<Response<R::Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Checking { check, pending } => {
                    let checked = ready!(check.as_mut().poll(cx));
                    let pending = pending.take().expect("polled after completion");
                    match (pending.authenticate)(&pending.manager, &pending.token, checked, None) {
                        AuthOutcome::Known(outcome) => pending.resume(outcome),
                        AuthOutcome::Waiting(outcome) => {
                            let pending = Some(pending);
                            State::Waiting { outcome, pending }
                        }
                    }
                }
                StateProj::Waiting { outcome, pending } => {
                    let outcome = ready!(outcome.as_mut().poll(cx));
                    pending
                        .take()
                        .expect("polled after completion")
                        .resume(outcome)
                }
                StateProj::Calling { future, post } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(post.finish(response, type_name::<D>())));
                }
                StateProj::Refused { rejection, post } => {
                    let rejection = rejection.take().expect("polled after completion");
                    return Poll::Ready(Ok(post.refuse(rejection)));
                }
            };
            state.set(next);
        }
    }
}

impl<S, D, ReqBody, R> Pending<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>>,
    D: Send + Sync + 'static,
{
    /// Calls the inner service with the authenticated request, or refuses the request.
    fn resume(mut self, outcome: Result<Verdict<D>, Error>) -> State<S, D, ReqBody, R, S::Future> {
        let manager = &self.manager;
        match attach_session(&mut self.post, manager, outcome, &mut self.request) {
            Ok(()) => State::Calling {
                future: self.service.call(self.request),
                post: self.post,
            },
            Err(rejection) => State::Refused {
                rejection: Some(rejection),
                post: self.post,
            },
        }
    }
}

impl<S, D, ReqBody, R> fmt::Debug for ResponseFuture<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Checking { .. } => "Checking",
            State::Waiting { .. } => "Waiting",
            State::Calling { .. } => "Calling",
            State::Refused { .. } => "Refused",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
