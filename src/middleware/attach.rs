use http::Request;

use super::{
    Anonymous, Rejection, Session, mode::Mode, session::insert_auth_extensions,
    settings::PostProcess,
};
use crate::{Error, TokenManager, User, token::TokenIds};

/// Attaches the session to the request, or returns the rejection.
pub(super) fn attach_session<D, R, ReqBody>(
    post: &mut PostProcess<R>,
    manager: &TokenManager<D>,
    ids: TokenIds,
    user: Result<Option<User<D>>, Error>,
    request: &mut Request<ReqBody>,
) -> Result<(), Rejection>
where
    D: Send + Sync + 'static,
{
    let outcome = match user.map_err(Rejection::from_check)? {
        Some(user) => {
            if let Some(below) = post.settings.refresh_below {
                manager.renew_below(below, &user);
            }
            let source = post.source().expect("a token comes by a source").clone();
            Ok(Session::new(user, ids, manager.clone(), source))
        }
        None => {
            post.note_dead_token();
            if post.settings.mode == Mode::Required {
                return Err(Rejection::InvalidToken);
            }
            Err(Anonymous::new(Rejection::InvalidToken, manager.clone()))
        }
    };
    insert_auth_extensions(request.extensions_mut(), outcome);
    Ok(())
}
