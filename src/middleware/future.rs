use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use serde::{Serialize, de::DeserializeOwned};
use tower::Service;

use super::{
    Anonymous, Rejection, Session,
    layer::{Mode, Settings},
    respond::{OfferedToken, OnRejection, PlainResponse, is_grpc},
    session::judge,
};
use crate::{Error, TokenId, TokenManager, User, token::ParsedToken};

pin_project! {
    /// The response future of [`SessionService`](super::SessionService).
    pub struct ResponseFuture<S, D, ReqBody, R = PlainResponse>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, D, ReqBody, S::Future>,
        settings: Arc<Settings<R>>,
        offered: Option<OfferedToken>,
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
            grpc: bool,
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
}

impl<S, D, ReqBody, R> ResponseFuture<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn check(
        manager: TokenManager<D>,
        token: ParsedToken,
        service: S,
        request: Request<ReqBody>,
        settings: &Arc<Settings<R>>,
        offered: Option<OfferedToken>,
    ) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let pending = Some(Pending {
            service,
            request,
            manager: manager.clone(),
            token_id: token.id,
        });
        let check = Box::pin(async move { manager.check_parsed_or_update_user(&token).await });
        Self::new(State::Checking { check, pending }, settings, offered)
    }

    pub(super) fn call(
        future: S::Future,
        settings: &Arc<Settings<R>>,
        offered: Option<OfferedToken>,
    ) -> Self {
        Self::new(State::Calling { future }, settings, offered)
    }

    pub(super) fn reject(rejection: Rejection, grpc: bool, settings: &Arc<Settings<R>>) -> Self {
        let rejection = Some(rejection);
        Self::new(State::Rejected { rejection, grpc }, settings, None)
    }

    fn new(
        state: State<S, D, ReqBody, S::Future>,
        settings: &Arc<Settings<R>>,
        offered: Option<OfferedToken>,
    ) -> Self {
        Self {
            state,
            settings: Arc::clone(settings),
            offered,
        }
    }
}

impl<S, D, ReqBody, R, ResBody> Future for ResponseFuture<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    D: Send + Sync + 'static,
    R: OnRejection<ResBody>,
    ResBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        let settings = &**this.settings;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Checking { check, pending } => {
                    let checked = ready!(check.as_mut().poll(cx));
                    let pending = pending.take().expect("polled after completion");
                    pending.go_on(checked, settings)
                }
                StateProj::Calling { future } => {
                    let response = ready!(future.poll(cx))?;
                    let response = settings.responder.pass(response, *this.offered);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Rejected { rejection, grpc } => {
                    let rejection = rejection.take().expect("polled after completion");
                    return Poll::Ready(Ok(settings.responder.refuse(rejection, *grpc)));
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
    fn go_on<R>(
        mut self,
        checked: Result<Option<User<D>>, Error>,
        settings: &Settings<R>,
    ) -> State<S, D, ReqBody, S::Future> {
        let verdict = match checked {
            Ok(Some(user)) => {
                if let Some(below) = settings.refresh_below {
                    self.manager.renew_below(below, &user);
                }
                Ok(Session::new(user, self.token_id, self.manager))
            }
            Ok(None) if settings.mode == Mode::Optional => {
                Err(Anonymous::new(Rejection::InvalidToken, self.manager))
            }
            Ok(None) => return self.reject(Rejection::InvalidToken),
            Err(error) => return self.reject(error.into()),
        };
        judge(self.request.extensions_mut(), verdict);
        let future = self.service.call(self.request);
        State::Calling { future }
    }

    fn reject(&self, rejection: Rejection) -> State<S, D, ReqBody, S::Future> {
        State::Rejected {
            rejection: Some(rejection),
            grpc: is_grpc(self.request.headers()),
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
            State::Calling { .. } => "Calling",
            State::Rejected { .. } => "Rejected",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
