//! Checking presented tokens, refusing them, and ending the sessions of reused ones (RFC 9700 §4.14.2).

use std::sync::Arc;

use bytes::Bytes;

use super::{
    TokenManager,
    sessions::{Change, Subject},
    state::SessionState,
};
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

/// A refusal of a token by the check of its session.
pub(super) struct Refused {
    pub(super) reason: RefusalReason,
    /// The metadata of the session, if there is one.
    pub(super) metadata: Option<Bytes>,
}

/// The check of a session, if the token can be used, or else the refusal.
///
/// The session of a reused token [has to be ended](TokenManager::refuse).
#[inline]
pub(super) fn accept(ids: TokenIds, checked: Option<Checked>) -> Result<Checked, Refused> {
    let Some(checked) = checked else {
        return Err(RefusalReason::NotLive.into());
    };
    let session = &checked.session;
    let reason = match session.token_status(&ids.session, &ids.token, checked.now) {
        TokenStatus::Current | TokenStatus::InGrace => return Ok(checked),
        TokenStatus::Reused => RefusalReason::Reused,
        // The client need not know more of the session than its id.
        TokenStatus::Unknown => return Err(RefusalReason::NotLive.into()),
    };
    let metadata = Some(checked.session.metadata());
    Err(Refused { reason, metadata })
}

impl From<RefusalReason> for Refused {
    fn from(reason: RefusalReason) -> Self {
        let metadata = None;
        Self { reason, metadata }
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
    #[inline]
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
        parsed.inspect_err(|reason| self.refused(None, *reason, None))
    }

    /// Begins the lookup of a session and its user.
    pub(super) fn look_up(&self, user_id: &Arc<str>, token_id: &TokenId) -> Lookup {
        Lookup::begin(&self.inner.sessions.store, user_id, *token_id)
    }

    pub(crate) fn look_up_token(&self, token: &ParsedToken) -> Lookup {
        self.look_up(&token.user_id, &token.ids.session)
    }

    /// The same, and no cache of the store answers it.
    pub(crate) fn ask_for_token(&self, token: &ParsedToken) -> Lookup {
        Lookup::ask(
            &self.inner.sessions.store,
            &token.user_id,
            token.ids.session,
        )
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
            Err(refused) => Ok(Err(self.refuse(token, late.apply(refused)).await?)),
        }
    }

    /// Reports that a token was refused, and returns the reason. The session of a reused token is ended first.
    pub(super) async fn refuse(
        &self,
        token: &ParsedToken,
        refused: Refused,
    ) -> Result<RefusalReason, Error> {
        let Refused { reason, metadata } = refused;
        let (user_id, token_id) = (&token.user_id, token.ids.session);
        if reason == RefusalReason::Reused {
            let metadata = metadata.clone();
            let change = Change::Reused(Subject { token_id, metadata });
            let sessions = self.sessions();
            sessions.end(Arc::clone(user_id), token_id, change).await?;
        }
        self.refused(
            Some((user_id, Some(&token_id))),
            reason,
            metadata.as_deref(),
        );
        Ok(reason)
    }

    /// Finds out why the session of a token was not changed. If that is because of the token, the token is refused; if
    /// not, the session is returned as it is now.
    pub(super) async fn why_unchanged(
        &self,
        token: &ParsedToken,
        late: Late,
    ) -> Result<Result<Checked, RefusalReason>, Error> {
        let checked = self.look_up_token(token).wait().await?;
        let refused = match accept(token.ids, checked) {
            Err(refused) => late.apply(refused),
            Ok(Checked { session, .. })
                if session.current_token(&token.ids.session) != &token.ids.token =>
            {
                Refused {
                    reason: RefusalReason::Replaced,
                    metadata: Some(session.metadata()),
                }
            }
            // A replacement of the token was undone in between, or the metadata was changed.
            Ok(checked) => return Ok(Ok(checked)),
        };
        Ok(Err(self.refuse(token, refused).await?))
    }
}

impl Late {
    fn apply(self, mut refused: Refused) -> Refused {
        if refused.reason == RefusalReason::Reused && self == Self::IsRefused {
            refused.reason = RefusalReason::Replaced;
        }
        refused
    }
}
