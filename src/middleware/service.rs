use std::{
    fmt, mem,
    task::{Context, Poll},
};

use http::{Request, Response};
use serde::{Serialize, de::DeserializeOwned};
use tower::Service;

use super::{Anonymous, Rejection, future::ResponseFuture, layer::Mode, session::judge, source};
use crate::TokenManager;

/// The service that [`SessionLayer`](super::SessionLayer) makes.
pub struct SessionService<S, D = serde_json::Value> {
    inner: S,
    manager: TokenManager<D>,
    mode: Mode,
}

impl<S, D> SessionService<S, D> {
    pub(super) fn new(inner: S, manager: TokenManager<D>, mode: Mode) -> Self {
        Self {
            inner,
            manager,
            mode,
        }
    }
}

impl<S, D, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S, D>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, D, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let token = source::bearer_token(request.headers_mut())
            .and_then(|token| self.manager.parse(token).ok_or(Rejection::InvalidToken));
        match token {
            Ok(token) => {
                // The service that was polled ready is the one to call; its clone need not be ready.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let manager = self.manager.clone();
                ResponseFuture::check(manager, token, self.mode, ready, request)
            }
            Err(reason) if self.mode == Mode::Optional && reason.is_anonymous() => {
                let anonymous = Anonymous::new(reason, self.manager.clone());
                judge(request.extensions_mut(), Err(anonymous));
                ResponseFuture::call(self.inner.call(request))
            }
            Err(rejection) => ResponseFuture::reject(rejection),
        }
    }
}

impl<S: Clone, D> Clone for SessionService<S, D> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.manager.clone(), self.mode)
    }
}

impl<S: fmt::Debug, D> fmt::Debug for SessionService<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .field("manager", &self.manager)
            .field("mode", &self.mode)
            .finish()
    }
}
