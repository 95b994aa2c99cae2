use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use serde::{Serialize, de::DeserializeOwned};
use tower::Service;

use super::{Anonymous, Rejection, Session, layer::Mode, session::judge};
use crate::{Error, TokenId, TokenManager, User, token::ParsedToken};

pin_project! {
    /// The response future of [`SessionService`](super::SessionService).
    pub struct ResponseFuture<S, D, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, D, ReqBody, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, D, ReqBody, F> {
        Checking {
            check: Check<D>,
            pending: Option<Pending<S, D, ReqBody>>,
        },
        Calling {
            #[pin]
            future: F,
        },
        Rejected {
            rejection: Option<Rejection>,
        },
    }
}

type Check<D> = Pin<Box<dyn Future<Output = Result<Option<User<D>>, Error>> + Send>>;

/// What waits for the check: the ready service, and the request to call it with.
struct Pending<S, D, ReqBody> {
    service: S,
    request: Request<ReqBody>,
    manager: TokenManager<D>,
    token_id: TokenId,
    mode: Mode,
}

impl<S, D, ReqBody> ResponseFuture<S, D, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn check(
        manager: TokenManager<D>,
        token: ParsedToken,
        mode: Mode,
        service: S,
        request: Request<ReqBody>,
    ) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let pending = Some(Pending {
            service,
            request,
            manager: manager.clone(),
            token_id: token.id,
            mode,
        });
        let check = Box::pin(async move { manager.check_parsed_or_update_user(&token).await });
        Self {
            state: State::Checking { check, pending },
        }
    }

    pub(super) fn call(future: S::Future) -> Self {
        Self {
            state: State::Calling { future },
        }
    }

    pub(super) fn reject(rejection: Rejection) -> Self {
        Self {
            state: State::Rejected {
                rejection: Some(rejection),
            },
        }
    }
}

impl<S, D, ReqBody, ResBody> Future for ResponseFuture<S, D, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    D: Send + Sync + 'static,
    ResBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Checking { check, pending } => {
                    let checked = ready!(check.as_mut().poll(cx));
                    let pending = pending.take().expect("polled after completion");
                    match pending.judge(checked) {
                        Ok(future) => State::Calling { future },
                        Err(rejection) => State::Rejected {
                            rejection: Some(rejection),
                        },
                    }
                }
                StateProj::Calling { future } => return future.poll(cx),
                StateProj::Rejected { rejection } => {
                    let rejection = rejection.take().expect("polled after completion");
                    return Poll::Ready(Ok(rejection.response()));
                }
            };
            state.set(next);
        }
    }
}

impl<S, D, ReqBody> Pending<S, D, ReqBody>
where
    S: Service<Request<ReqBody>>,
    D: Send + Sync + 'static,
{
    /// Calls the service, if the verdict on the token allows it.
    fn judge(mut self, checked: Result<Option<User<D>>, Error>) -> Result<S::Future, Rejection> {
        let verdict = match checked {
            Ok(Some(user)) => Ok(Session::new(user, self.token_id, self.manager)),
            Ok(None) if self.mode == Mode::Optional => {
                Err(Anonymous::new(Rejection::InvalidToken, self.manager))
            }
            Ok(None) => return Err(Rejection::InvalidToken),
            Err(error) => return Err(error.into()),
        };
        judge(self.request.extensions_mut(), verdict);
        Ok(self.service.call(self.request))
    }
}

impl<S, D, ReqBody> fmt::Debug for ResponseFuture<S, D, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Checking { .. } => "Checking",
            State::Calling { .. } => "Calling",
            State::Rejected { .. } => "Rejected",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
