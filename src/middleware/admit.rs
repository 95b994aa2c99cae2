use http::{Request, Response};

use super::{
    Anonymous, Rejection, Session,
    layer::{Mode, Settings},
    respond::OnRejection,
    session::judge,
};
use crate::{Error, TokenId, TokenManager, User};

/// Tells a request whose it is, or gives the response that refuses it.
pub(super) fn admit<D, R, ReqBody, ResBody>(
    settings: &Settings<R>,
    manager: &TokenManager<D>,
    token_id: &TokenId,
    user: Result<Option<User<D>>, Error>,
    request: &mut Request<ReqBody>,
) -> Result<(), Response<ResBody>>
where
    D: Send + Sync + 'static,
    R: OnRejection<ResBody>,
    ResBody: Default,
{
    let refuse = |rejection| Err(settings.responder.refuse(rejection, request.headers()));
    let verdict = match user {
        Ok(Some(user)) => {
            if let Some(below) = settings.refresh_below {
                manager.renew_below(below, &user);
            }
            Ok(Session::new(user, *token_id, manager.clone()))
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
