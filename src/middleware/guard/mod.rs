//! Guards: layers that let only some of the sessions through to a route.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Extensions, Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

pub use self::layers::{
    RequirePredicate, RequireRecentAuthentication, RequireScope, RequireSession,
};
use super::{Rejection, reject::PendingPostProcess};

mod layers;

/// What a guard asks of the extensions of a request.
type Check = dyn Fn(&Extensions) -> Result<(), Rejection> + Send + Sync;

/// The tower service of the guards, such as [`RequireScope`].
///
/// It answers a request that it refuses with the response to the [`Rejection`], which the
/// [`SessionLayer`](super::SessionLayer) around it post-processes like those of its own. The body of the service must
/// be `Default`: one that is not, such as hyper's `Incoming`, has to be boxed first.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    check: Arc<Check>,
}

impl<S> Guard<S> {
    fn new(inner: S, check: Arc<Check>) -> Self {
        Self { inner, check }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Guard<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = GuardFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let state = match (self.check)(request.extensions()) {
            Ok(()) => State::Calling {
                future: self.inner.call(request),
            },
            Err(rejection) => State::Refused {
                rejection: Some(rejection),
            },
        };
        GuardFuture { state }
    }
}

impl<S: fmt::Debug> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Guard");
        debug.field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The response future of a [`Guard`].
    #[derive(Debug)]
    pub struct GuardFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProj]
    enum State<F> {
        Calling {
            #[pin]
            future: F,
        },
        Refused {
            rejection: Option<Rejection>,
        },
    }
}

impl<F, B, E> Future for GuardFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProj::Calling { future } => Poll::Ready(ready!(future.poll(cx))),
            StateProj::Refused { rejection } => {
                let rejection = rejection.take().expect("polled after completion");
                let mut response = rejection.head().map(|()| B::default());
                let extensions = response.extensions_mut();
                extensions.insert(rejection);
                extensions.insert(PendingPostProcess);
                Poll::Ready(Ok(response))
            }
        }
    }
}
