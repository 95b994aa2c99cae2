use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Anonymous, Rejection, Session,
    layer::{Mode, Settings},
    respond::{Manners, OnRejection},
    session::judge,
};
use crate::{Error, TokenManager, User, manager::Verdict, store::Checked, token::ParsedToken};

/// A request and its token, until there is a verdict on it.
pub(super) struct Case<D, ReqBody, R> {
    request: Request<ReqBody>,
    token: ParsedToken,
    manager: TokenManager<D>,
    judge: Judge<D>,
    finish: Finish<R>,
}

/// [`TokenManager::judge`]; so that the response future of a layer without sessions need not know what that needs.
type Judge<D> = fn(
    &TokenManager<D>,
    &ParsedToken,
    Result<Option<Checked>, Error>,
    Option<Duration>,
) -> Verdict<D>;

/// What is to be done with the response.
pub(super) struct Finish<R> {
    pub(super) settings: Arc<Settings<R>>,
    pub(super) manners: Manners,
}

impl<D, ReqBody, R> Case<D, ReqBody, R> {
    pub(super) fn new(
        request: Request<ReqBody>,
        token: ParsedToken,
        manager: TokenManager<D>,
        finish: Finish<R>,
    ) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Self {
            request,
            token,
            manager,
            judge: TokenManager::judge,
            finish,
        }
    }

    /// What the answer of the store means.
    pub(super) fn judge(&self, checked: Result<Option<Checked>, Error>) -> Verdict<D> {
        (self.judge)(&self.manager, &self.token, checked, None)
    }

    /// The request as the service is to see it, or the response that refuses it.
    pub(super) fn close<ResBody>(
        mut self,
        user: Result<Option<User<D>>, Error>,
    ) -> Result<(Request<ReqBody>, Finish<R>), Response<ResBody>>
    where
        D: Send + Sync + 'static,
        R: OnRejection<ResBody>,
        ResBody: Default,
    {
        let settings = &self.finish.settings;
        let refuse = |rejection| {
            let responder = &settings.responder;
            Err(responder.refuse(rejection, self.request.headers()))
        };
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
            Ok(None) => return refuse(Rejection::InvalidToken),
            Err(error) => return refuse(error.into()),
        };
        judge(self.request.extensions_mut(), verdict);
        Ok((self.request, self.finish))
    }
}
