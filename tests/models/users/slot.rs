//! Cached values, which are short here. As in the crate, none is made twice.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

pub(super) const MARKER_TTL: Duration = Duration::from_secs(60);

pub(super) enum Slot<D> {
    User(D),
    NoSuchUser,
    Vacant,
}

impl<D: DeserializeOwned> Slot<D> {
    pub(super) fn decode(_user_id: &str, value: Option<&[u8]>) -> Self {
        match value {
            Some([b'-', ..]) => Self::NoSuchUser,
            Some([b'!', ..]) | None => Self::Vacant,
            Some(value) => {
                let (detail, _nonce): (D, u64) = serde_json::from_slice(value).expect("a user");
                Self::User(detail)
            }
        }
    }
}

pub(super) fn encode<D: Serialize>(detail: &D) -> Vec<u8> {
    serde_json::to_vec(&(detail, nonce())).expect("a value")
}

pub(super) fn marker() -> Result<Vec<u8>, Error> {
    Ok(format!("!{}", nonce()).into_bytes())
}

fn nonce() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}
