use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
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
use crate::{
    Error, TokenManager, User,
    manager::Verdict,
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
        state: State<S, D, ReqBody, R, S::Future, S::Response>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, D, ReqBody, R, F, Res> {
        Checking {
            check: BoxFuture<'static, Option<Checked>>,
            pending: Option<Pending<S, D, ReqBody, R>>,
        },
        Loading {
            load: BoxFuture<'static, Option<User<D>>>,
            pending: Option<Pending<S, D, ReqBody, R>>,
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

/// What waits for the verdict on its token: the ready service, and the request to call it with.
struct Pending<S, D, ReqBody, R> {
    service: S,
    request: Request<ReqBody>,
    manager: TokenManager<D>,
    token: ParsedToken,
    judge: Judge<D>,
    finish: Finish<R>,
}

/// [`TokenManager::judge`]; by this the response future of a layer without sessions need not know what it needs.
type Judge<D> = fn(&TokenManager<D>, &ParsedToken, Option<Checked>, Option<Duration>) -> Verdict<D>;

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
        let check = manager.look_up_token(&token);
        let pending = Some(Pending {
            service,
            request,
            manager,
            token,
            judge: TokenManager::judge,
            finish,
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
                    let checked = ready!(check.as_mut().poll(cx));
                    let pending = pending.take().expect("polled after completion");
                    match checked.map(|checked| pending.judge(checked)) {
                        Ok(Verdict::Known(user)) => pending.go_on(Ok(user)),
                        Ok(Verdict::Load(load)) => {
                            let pending = Some(pending);
                            State::Loading { load, pending }
                        }
                        Err(error) => pending.go_on(Err(error)),
                    }
                }
                StateProj::Loading { load, pending } => {
                    let user = ready!(load.as_mut().poll(cx));
                    pending.take().expect("polled after completion").go_on(user)
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

impl<S, D, ReqBody, R> Pending<S, D, ReqBody, R> {
    fn judge(&self, checked: Option<Checked>) -> Verdict<D> {
        (self.judge)(&self.manager, &self.token, checked, None)
    }
}

impl<S, D, ReqBody, R, ResBody> Pending<S, D, ReqBody, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    D: Send + Sync + 'static,
    R: OnRejection<ResBody>,
    ResBody: Default,
{
    /// Calls the service, if the verdict on the token allows it.
    fn go_on(
        mut self,
        user: Result<Option<User<D>>, Error>,
    ) -> State<S, D, ReqBody, R, S::Future, S::Response> {
        let settings = &self.finish.settings;
        let verdict = match user {
            Ok(Some(user)) => {
                if let Some(below) = settings.refresh_below {
                    self.manager.renew_below(below, &user);
                }
                Ok(Session::new(user, self.token.id, self.manager))
            }
            Ok(None) if settings.mode == Mode::Optional => {
                Err(Anonymous::new(Rejection::InvalidToken, self.manager))
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

    fn refuse(&self, rejection: Rejection) -> State<S, D, ReqBody, R, S::Future, S::Response> {
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
            State::Loading { .. } => "Loading",
            State::Calling { .. } => "Calling",
            State::Refused { .. } => "Refused",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
