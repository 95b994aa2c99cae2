use http::Request;

use super::{
    Anonymous, Rejection, Session, mode::Mode, outcome::insert_auth_extensions,
    settings::PostProcess,
};
use crate::{
    Error, TokenManager,
    manager::{Authenticated, RenewalPolicy},
};

/// Attaches the session to the request, or returns the rejection.
pub(super) fn attach_session<D, R, ReqBody>(
    post: &mut PostProcess<R>,
    manager: &TokenManager<D>,
    outcome: Result<Option<Authenticated<D>>, Error>,
    request: &mut Request<ReqBody>,
) -> Result<(), Rejection>
where
    D: Send + Sync + 'static,
{
    let outcome = match outcome.map_err(Rejection::from_check)? {
        Some(authenticated) => {
            let renewal = post.settings.renewal;
            if renewal != RenewalPolicy::default() {
                manager.renew(renewal, &authenticated);
            }
            let source = post.source().expect("a token comes by a source").clone();
            Ok(Session::new(authenticated, manager.clone(), source))
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
