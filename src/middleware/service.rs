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
    attach::attach_session,
    future::{Pending, ResponseFuture},
    hook::{OnRejection, PlainResponse},
    mode::Mode,
    outcome::insert_auth_extensions,
    settings::{PostProcess, Settings},
};
use crate::{RefusalReason, TokenManager, manager::AuthOutcome, store::Lookup, token::ParsedToken};

/// The tower service of [`SessionLayer`](super::SessionLayer).
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
{
    type Response = Response<R::Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, D, ReqBody, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let settings = &self.settings;
        let context = settings.event_context(&mut request);
        let in_context = context.map(|context| self.manager.in_context(context));
        let manager = in_context.as_ref().unwrap_or(&self.manager);
        let mut is_final = true;
        let (token, mut post) = settings.read_token(&mut request, |found| {
            let token = found.inspect_err(|rejection| {
                if let Some(reason) = rejection.refusal_reason() {
                    manager.refused(None, reason, None);
                }
            })?;
            manager.try_parse(token).map_err(|reason| {
                // Its key may be a new one, which this process does not know yet.
                is_final = reason != RefusalReason::NotVerified;
                Rejection::InvalidToken
            })
        });
        match token {
            Ok(token) => {
                let lookup = match settings.always_ask {
                    true => manager.ask_for_token(&token),
                    false => manager.look_up_token(&token),
                };
                let outcome = match lookup {
                    Lookup::Done(checked) => manager.authenticate(&token, checked, None),
                    Lookup::Waiting(check) => {
                        let manager = manager.clone();
                        let pending = self.pending(manager, request, token, post);
                        return ResponseFuture::check(check, pending);
                    }
                };
                match outcome {
                    AuthOutcome::Known(outcome) => {
                        match attach_session(&mut post, manager, outcome, &mut request) {
                            Ok(()) => ResponseFuture::call(self.inner.call(request), post),
                            Err(rejection) => ResponseFuture::refuse(rejection, post),
                        }
                    }
                    AuthOutcome::Waiting(outcome) => {
                        let manager = manager.clone();
                        let pending = self.pending(manager, request, token, post);
                        ResponseFuture::wait(outcome, pending)
                    }
                }
            }
            Err(reason) if reason.is_anonymous() => {
                if is_final && matches!(reason, Rejection::InvalidToken) {
                    post.note_dead_token();
                }
                if settings.mode == Mode::Required {
                    return ResponseFuture::refuse(reason, post);
                }
                let anonymous = Anonymous::new(reason, manager.clone());
                insert_auth_extensions(request.extensions_mut(), Err(anonymous));
                ResponseFuture::call(self.inner.call(request), post)
            }
            Err(rejection) => ResponseFuture::refuse(rejection, post),
        }
    }
}

impl<S: Clone, D, R> SessionService<S, D, R>
where
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn pending<ReqBody>(
        &mut self,
        manager: TokenManager<D>,
        request: Request<ReqBody>,
        token: ParsedToken,
        post: PostProcess<R>,
    ) -> Box<Pending<S, D, ReqBody, R>> {
        // Keep the service that was polled ready: a clone need not be ready.
        let clone = self.inner.clone();
        let service = mem::replace(&mut self.inner, clone);
        Box::new(Pending {
            service,
            request,
            token,
            manager,
            authenticate: TokenManager::authenticate,
            post,
        })
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
