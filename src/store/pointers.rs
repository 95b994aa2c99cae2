use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Checked, Created, NewSession, PutMode, SessionChange, SessionLimit, SessionRecord,
    SessionStore, Updated, UserCursor, UserPage,
};
use crate::{Error, TokenId};

/// Implements the contract for a pointer by the store behind it: every method, those with a default too.
macro_rules! impl_session_store {
    ($($pointer:ident),*) => {
        $(impl<S: SessionStore> SessionStore for $pointer<S> {
            async fn create(
                &self,
                user_id: &str,
                token_id: &TokenId,
                new: &NewSession,
                limit: Option<SessionLimit>,
            ) -> Result<Created, Error> {
                (**self).create(user_id, token_id, new, limit).await
            }

            async fn check(
                &self,
                user_id: &str,
                token_id: &TokenId,
            ) -> Result<Option<Checked>, Error> {
                (**self).check(user_id, token_id).await
            }

            fn check_now(
                &self,
                user_id: &str,
                token_id: &TokenId,
            ) -> Option<Result<Option<Checked>, Error>> {
                (**self).check_now(user_id, token_id)
            }

            async fn update(
                &self,
                user_id: &str,
                token_id: &TokenId,
                change: &SessionChange,
            ) -> Result<Option<Updated>, Error> {
                (**self).update(user_id, token_id, change).await
            }

            async fn refresh(
                &self,
                user_id: &str,
                token_id: &TokenId,
                ttl: Duration,
            ) -> Result<bool, Error> {
                (**self).refresh(user_id, token_id, ttl).await
            }

            async fn delete(&self, user_id: &str, token_id: &TokenId) -> Result<bool, Error> {
                (**self).delete(user_id, token_id).await
            }

            async fn delete_all(
                &self,
                user_id: &str,
                except: Option<&TokenId>,
            ) -> Result<u64, Error> {
                (**self).delete_all(user_id, except).await
            }

            async fn list(&self, user_id: &str) -> Result<Vec<(TokenId, SessionRecord)>, Error> {
                (**self).list(user_id).await
            }

            async fn list_users(&self, after: Option<&UserCursor>) -> Result<UserPage, Error> {
                (**self).list_users(after).await
            }

            async fn get_user(&self, user_id: &str) -> Result<Option<Bytes>, Error> {
                (**self).get_user(user_id).await
            }

            async fn put_user(
                &self,
                user_id: &str,
                value: &[u8],
                ttl: Duration,
                mode: PutMode<'_>,
            ) -> Result<bool, Error> {
                (**self).put_user(user_id, value, ttl, mode).await
            }

            fn changed(&self, user_id: &str) -> impl Future<Output = ()> + Send {
                (**self).changed(user_id)
            }

            async fn ping(&self) -> Result<(), Error> {
                (**self).ping().await
            }
        })*
    };
}

impl_session_store!(Arc, Box);
