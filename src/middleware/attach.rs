use http::Request;

use super::{
    Anonymous, Rejection, Session, mode::Mode, outcome::insert_auth_extensions, settings::Settings,
};
use crate::{
    Error, TokenManager,
    manager::{Authenticated, RenewalPolicy},
};

/// Attaches the session to the request, or returns the rejection.
pub(super) fn attach_session<D, R, ReqBody>(
    settings: &Settings<R>,
    manager: &TokenManager<D>,
    outcome: Result<Option<Authenticated<D>>, Error>,
    request: &mut Request<ReqBody>,
) -> Result<(), Rejection>
where
    D: Send + Sync + 'static,
{
    let outcome = match outcome.map_err(Rejection::from_check)? {
        Some(authenticated) => {
            if settings.renewal != RenewalPolicy::default() {
                manager.renew(settings.renewal, &authenticated);
            }
            Ok(Session::new(authenticated, manager.clone()))
        }
        None if settings.mode == Mode::Optional => {
            Err(Anonymous::new(Rejection::InvalidToken, manager.clone()))
        }
        None => return Err(Rejection::InvalidToken),
    };
    insert_auth_extensions(request.extensions_mut(), outcome);
    Ok(())
}
