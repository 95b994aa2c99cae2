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
    respond::{Manners, OnRejection, PlainResponse},
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
        state: State<S, D, ReqBody, R, S::Future, S::Response>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, D, ReqBody, R, F, Res> {
        Checking {
            check: Check<D>,
            pending: Option<Pending<S, ReqBody, R>>,
        },
        Calling {
            #[pin]
            future: F,
            finish: Finish<R>,
        },
        Refused {
            response: Option<Res>,
        },
    }
}

/// Gives the manager back that made it.
type Check<D> = Pin<Box<dyn Future<Output = (TokenManager<D>, Checked<D>)> + Send>>;

type Checked<D> = Result<Option<User<D>>, Error>;

/// What waits for the check: the ready service, and the request to call it with.
struct Pending<S, ReqBody, R> {
    service: S,
    request: Request<ReqBody>,
    token_id: TokenId,
    finish: Finish<R>,
}

/// What is to be done with the response.
pub(super) struct Finish<R> {
    pub(super) settings: Arc<Settings<R>>,
    pub(super) manners: Manners,
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
        finish: Finish<R>,
    ) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let pending = Some(Pending {
            service,
            request,
            token_id: token.id,
            finish,
        });
        let check = Box::pin(async move {
            let checked = manager.check_parsed_or_update_user(&token).await;
            (manager, checked)
        });
        Self {
            state: State::Checking { check, pending },
        }
    }

    pub(super) fn call(future: S::Future, finish: Finish<R>) -> Self {
        Self {
            state: State::Calling { future, finish },
        }
    }

    pub(super) fn refused(response: S::Response) -> Self {
        let response = Some(response);
        Self {
            state: State::Refused { response },
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
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Checking { check, pending } => {
                    let (manager, checked) = ready!(check.as_mut().poll(cx));
                    let pending = pending.take().expect("polled after completion");
                    pending.go_on(manager, checked)
                }
                StateProj::Calling { future, finish } => {
                    let response = ready!(future.poll(cx))?;
                    let responder = &finish.settings.responder;
                    return Poll::Ready(Ok(responder.pass(response, finish.manners)));
                }
                StateProj::Refused { response } => {
                    let response = response.take().expect("polled after completion");
                    return Poll::Ready(Ok(response));
                }
            };
            state.set(next);
        }
    }
}

impl<S, ReqBody, R, ResBody> Pending<S, ReqBody, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    R: OnRejection<ResBody>,
    ResBody: Default,
{
    /// Calls the service, if the verdict on the token allows it.
    fn go_on<D: Send + Sync + 'static>(
        mut self,
        manager: TokenManager<D>,
        checked: Checked<D>,
    ) -> State<S, D, ReqBody, R, S::Future, S::Response> {
        let settings = &self.finish.settings;
        let verdict = match checked {
            Ok(Some(user)) => {
                if let Some(below) = settings.refresh_below {
                    manager.renew_below(below, &user);
                }
                Ok(Session::new(user, self.token_id, manager))
            }
            Ok(None) if settings.mode == Mode::Optional => {
                Err(Anonymous::new(Rejection::InvalidToken, manager))
            }
            Ok(None) => return self.refuse(Rejection::InvalidToken),
            Err(error) => return self.refuse(error.into()),
        };
        judge(self.request.extensions_mut(), verdict);
        State::Calling {
            future: self.service.call(self.request),
            finish: self.finish,
        }
    }

    fn refuse<D>(&self, rejection: Rejection) -> State<S, D, ReqBody, R, S::Future, S::Response> {
        let responder = &self.finish.settings.responder;
        let response = Some(responder.refuse(rejection, self.request.headers()));
        State::Refused { response }
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
            State::Refused { .. } => "Refused",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
