//! Changes of a live session.

use std::time::{Duration, SystemTime};

use super::{
    RedisStore, check_len,
    conn::link::{Done, OnDrop},
    millis, record,
    wire::{script::UPDATE, unexpected_reply},
};
use crate::{
    Error, TokenId,
    store::{Rotation, SessionChange, Updated},
};

impl RedisStore {
    pub(super) async fn change(
        &self,
        user_id: &str,
        token_id: &TokenId,
        change: &SessionChange,
    ) -> Result<Option<Updated>, Error> {
        let metadata = change.metadata.as_deref();
        check_len("the metadata of a session", metadata.unwrap_or_default())?;
        let version = change.if_version;
        let version = [
            version.map(|version| version.refreshed_at),
            version.map(|version| version.expires_at),
        ];
        let version = version.map(|time| time.map(|time| record::millis(time).to_string()));
        let flag = |set: bool, name: &'static str| if set { name } else { "" };
        let if_metadata = change.if_metadata.as_deref();
        let bytes = |id: Option<TokenId>| id.map(|id| id.to_bytes().to_vec()).unwrap_or_default();
        let new_token = change.new_token;
        let call = UPDATE
            .call(self.keys.sessions(user_id))
            .arg(&*token_id.text())
            .arg(
                change
                    .ttl
                    .map(|ttl| millis(ttl).to_string())
                    .unwrap_or_default(),
            )
            .arg(flag(metadata.is_some(), "set"))
            .arg(metadata.unwrap_or_default())
            .arg(flag(change.authenticated, "authenticated"))
            .arg(version.map(Option::unwrap_or_default).as_slice())
            .arg(flag(if_metadata.is_some(), "if"))
            .arg(if_metadata.unwrap_or_default())
            .arg(bytes(Some(*token_id)))
            .arg(bytes(change.if_token))
            .arg(bytes(new_token.map(|new| new.token_id)))
            .arg(new_token.map_or(0, |new| millis(new.grace)))
            .arg(Rotation::MAX_REPLACED)
            .arg(flag(change.end_others, "others"))
            .arg(self.cluster_arg());
        let done = self.client.write(&call, OnDrop::Retry).await?;
        let Done {
            reply,
            live,
            repeated,
        } = done;
        let (outcome, expires_at, ended): (String, u64, u64) = reply;
        let updated = match &*outcome {
            "done" => true,
            "perhaps" => repeated && change.is_renewal(),
            "no" => false,
            "newer" => return Err(Error::newer_session()),
            _ => return Err(unexpected_reply("update")),
        };
        if !updated {
            return Ok(None);
        }
        self.client.confirm(call.key(), &live).await?;
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_millis(expires_at);
        let may_have_ended = u64::from(change.end_others && repeated);
        Ok(Some(Updated::new(expires_at, ended.max(may_have_ended))))
    }
}
