//! Checking presented tokens, refusing them, and ending the sessions of reused ones (RFC 9700 §4.14.2).

use std::sync::Arc;

use super::{TokenManager, sessions::Change, state::SessionState};
use crate::{
    Error, RefusalReason, TokenId, User,
    store::{Checked, Lookup, TokenStatus},
    token::{ParsedToken, TokenIds},
};

/// What it means that a token was replaced and its grace is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The token has just been presented: that is reuse.
    IsReuse,
    /// The request presented the token earlier, when it could be used.
    IsRefused,
}

/// The check of a session, if the token can be used, or else the reason why it is refused.
///
/// The session of a reused token [has to be ended](TokenManager::refuse).
pub(super) fn accept(ids: TokenIds, checked: Option<Checked>) -> Result<Checked, RefusalReason> {
    let checked = checked.ok_or(RefusalReason::NotLive)?;
    let session = &checked.session;
    match session.token_status(&ids.session, &ids.token, checked.now) {
        TokenStatus::Current | TokenStatus::InGrace => Ok(checked),
        TokenStatus::Reused => Err(RefusalReason::Reused),
        TokenStatus::Unknown => Err(RefusalReason::NotLive),
    }
}

/// The user of a token, and the state of its session.
pub(crate) struct Authenticated<D> {
    pub(crate) user: User<D>,
    pub(crate) session: SessionState,
}

/// The user and the session of a token, or the reason why it is refused.
pub(crate) type Verdict<D> = Result<Authenticated<D>, RefusalReason>;

impl<D> Authenticated<D> {
    /// Those of a token, by the check of its session.
    pub(super) fn of(token: &ParsedToken, detail: Option<Arc<D>>, checked: Checked) -> Self {
        let session = SessionState::of(token.ids, checked);
        let user = User::new(Arc::clone(&token.user_id), detail, Some(session.token()));
        Self { user, session }
    }
}

impl<D> TokenManager<D> {
    /// Parses a token without a store call. Returns `None` if this manager cannot have issued it.
    pub(super) fn parse(&self, token: &str) -> Option<ParsedToken> {
        self.try_parse(token).ok()
    }

    /// [`parse`](Self::parse) with the reason, which it reports.
    pub(crate) fn try_parse(&self, token: &str) -> Result<ParsedToken, RefusalReason> {
        let parsed = self.inner.format.parse(token);
        parsed.inspect_err(|reason| self.refused(None, *reason))
    }

    /// Begins the lookup of a session and its user.
    pub(super) fn look_up(&self, user_id: &Arc<str>, token_id: &TokenId) -> Lookup {
        Lookup::begin(&self.inner.sessions.store, user_id, *token_id)
    }

    pub(crate) fn look_up_token(&self, token: &ParsedToken) -> Lookup {
        self.look_up(&token.user_id, &token.ids.session)
    }

    /// Authenticates a token by the check of its session.
    pub(super) async fn authenticated(
        &self,
        token: &ParsedToken,
        detail: Option<Arc<D>>,
        checked: Option<Checked>,
        late: Late,
    ) -> Result<Verdict<D>, Error> {
        match accept(token.ids, checked) {
            Ok(checked) => Ok(Ok(Authenticated::of(token, detail, checked))),
            Err(reason) => {
                let reason = late.reason(reason);
                self.refuse(token, reason).await?;
                Ok(Err(reason))
            }
        }
    }

    /// Reports that a token was refused. The session of a reused token is ended first.
    pub(super) async fn refuse(
        &self,
        token: &ParsedToken,
        reason: RefusalReason,
    ) -> Result<(), Error> {
        if reason == RefusalReason::Reused {
            let (user_id, session) = (Arc::clone(&token.user_id), token.ids.session);
            let change = Change::Reused(session);
            self.inner.sessions.end(user_id, session, change).await?;
        }
        self.refused(Some((&token.user_id, Some(&token.ids.session))), reason);
        Ok(())
    }

    /// Finds out why the session of a token was not changed. If that is because of the token, the token is refused; if
    /// not, the session is returned as it is now.
    pub(super) async fn why_unchanged(
        &self,
        token: &ParsedToken,
        late: Late,
    ) -> Result<Result<Checked, RefusalReason>, Error> {
        let checked = self.look_up_token(token).wait().await?;
        let reason = match accept(token.ids, checked) {
            Err(reason) => late.reason(reason),
            Ok(checked)
                if checked.session.current_token(&token.ids.session) != &token.ids.token =>
            {
                RefusalReason::Replaced
            }
            // A replacement of the token was undone in between, or the metadata was changed.
            Ok(checked) => return Ok(Ok(checked)),
        };
        self.refuse(token, reason).await?;
        Ok(Err(reason))
    }
}

impl Late {
    fn reason(self, reason: RefusalReason) -> RefusalReason {
        match reason {
            RefusalReason::Reused if self == Self::IsRefused => RefusalReason::Replaced,
            reason => reason,
        }
    }
}
