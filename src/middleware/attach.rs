use http::Request;

use super::{
    Anonymous, Rejection, Session, mode::Mode, outcome::insert_auth_extensions,
    settings::PostProcess,
};
use crate::{
    Error, RefusalReason, TokenManager,
    manager::{RenewalPolicy, Verdict},
};

/// Attaches the session to the request, or returns the rejection.
#[inline]
pub(super) fn attach_session<D, R, ReqBody>(
    post: &mut PostProcess<R>,
    manager: &TokenManager<D>,
    outcome: Result<Verdict<D>, Error>,
    request: &mut Request<ReqBody>,
) -> Result<(), Rejection>
where
    D: Send + Sync + 'static,
{
    let outcome = match outcome.map_err(Rejection::from_check)? {
        Ok(authenticated) => {
            let renewal = post.settings.renewal;
            if renewal != RenewalPolicy::default() {
                manager.renew(renewal, &authenticated);
            }
            let source = post.source().expect("a token comes by a source").clone();
            Ok(Session::new(authenticated, manager.clone(), source))
        }
        Err(reason) => {
            // A user whom the loader does not find may be there later, and a replaced token may have a successor.
            if matches!(reason, RefusalReason::NotLive | RefusalReason::Reused) {
                post.note_dead_token();
            }
            if post.settings.mode == Mode::Required {
                return Err(Rejection::InvalidToken);
            }
            Err(Anonymous::new(Rejection::InvalidToken, manager.clone()))
        }
    };
    insert_auth_extensions(request.extensions_mut(), outcome);
    Ok(())
}
