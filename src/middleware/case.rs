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

/// A token that came with a request, until there is a verdict on it.
pub(super) struct Case<D, R> {
    token: ParsedToken,
    manager: TokenManager<D>,
    judge: Judge<D>,
    pub(super) finish: Finish<R>,
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

impl<D, R> Case<D, R> {
    pub(super) fn new(token: ParsedToken, manager: TokenManager<D>, finish: Finish<R>) -> Self
    where
        D: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Self {
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

    /// Tells the request whose it is, or gives the response that refuses it.
    pub(super) fn close<ReqBody, ResBody>(
        &self,
        user: Result<Option<User<D>>, Error>,
        request: &mut Request<ReqBody>,
    ) -> Result<(), Response<ResBody>>
    where
        D: Send + Sync + 'static,
        R: OnRejection<ResBody>,
        ResBody: Default,
    {
        let (settings, manager) = (&self.finish.settings, &self.manager);
        let refuse = |rejection| Err(settings.responder.refuse(rejection, request.headers()));
        let verdict = match user {
            Ok(Some(user)) => {
                if let Some(below) = settings.refresh_below {
                    manager.renew_below(below, &user);
                }
                Ok(Session::new(user, self.token.id, manager.clone()))
            }
            Ok(None) if settings.mode == Mode::Optional => {
                Err(Anonymous::new(Rejection::InvalidToken, manager.clone()))
            }
            Ok(None) => return refuse(Rejection::InvalidToken),
            Err(error) => return refuse(error.into()),
        };
        judge(request.extensions_mut(), verdict);
        Ok(())
    }
}
