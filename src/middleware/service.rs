use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use serde::{Serialize, de::DeserializeOwned};
use tower::Service;

use super::{
    Anonymous, Rejection,
    case::{Case, Finish},
    future::ResponseFuture,
    layer::{Mode, Settings},
    respond::{OnRejection, PlainResponse},
    session::judge,
    source::read_token,
};
use crate::{TokenManager, manager::Verdict, store::Lookup};

/// The service that [`SessionLayer`](super::SessionLayer) makes.
pub struct SessionService<S, D = serde_json::Value, R = PlainResponse> {
    inner: S,
    manager: TokenManager<D>,
    settings: Arc<Settings<R>>,
}

impl<S, D, R> SessionService<S, D, R> {
    pub(super) fn new(inner: S, manager: TokenManager<D>, settings: Arc<Settings<R>>) -> Self {
        Self {
            inner,
            manager,
            settings,
        }
    }
}

impl<S, D, R, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S, D, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
    R: OnRejection<ResBody>,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, D, ReqBody, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let settings = &self.settings;
        let (token, manners) = read_token(&settings.sources, &mut request, |found| {
            let token = found.inspect_err(|rejection| {
                if let Some(reason) = rejection.refusal() {
                    self.manager.refused(None, reason);
                }
            })?;
            self.manager.parse(&token).ok_or(Rejection::InvalidToken)
        });
        let finish = || Finish {
            settings: Arc::clone(settings),
            manners,
        };
        match token {
            Ok(token) => {
                let lookup = self.manager.look_up_token(&token);
                let case = Case::new(token, self.manager.clone(), finish());
                match lookup {
                    Lookup::Done(checked) => match case.judge(checked) {
                        Verdict::Known(user) => match case.close(user, &mut request) {
                            Ok(()) => ResponseFuture::call(self.inner.call(request), case.finish),
                            Err(response) => ResponseFuture::refused(response),
                        },
                        Verdict::Load(load) => {
                            ResponseFuture::load(load, self.take_ready(), request, case)
                        }
                    },
                    Lookup::Waiting(check) => {
                        ResponseFuture::check(check, self.take_ready(), request, case)
                    }
                }
            }
            Err(reason) if settings.mode == Mode::Optional && reason.is_anonymous() => {
                let anonymous = Anonymous::new(reason, self.manager.clone());
                judge(request.extensions_mut(), Err(anonymous));
                ResponseFuture::call(self.inner.call(request), finish())
            }
            Err(rejection) => {
                let response = settings.responder.refuse(rejection, request.headers());
                ResponseFuture::refused(response)
            }
        }
    }
}

impl<S: Clone, D, R> SessionService<S, D, R> {
    /// The service that was polled ready, which is the one to call; its clone need not be ready.
    fn take_ready(&mut self) -> S {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }
}

impl<S: Clone, D, R> Clone for SessionService<S, D, R> {
    fn clone(&self) -> Self {
        let (manager, settings) = (self.manager.clone(), Arc::clone(&self.settings));
        Self::new(self.inner.clone(), manager, settings)
    }
}

impl<S: fmt::Debug, D, R> fmt::Debug for SessionService<S, D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt_with("SessionService", f, &self.manager)
    }
}
