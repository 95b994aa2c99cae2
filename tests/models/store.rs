//! What the loads of users need of a store and of errors.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Error {
    /// Of the store.
    Fault,
    Loader,
    Interrupted,
}

#[derive(Clone, Copy)]
pub(crate) enum PutMode<'a> {
    Replace,
    IfUnchanged(Option<&'a [u8]>),
}

pub(crate) trait ErasedStore: Send + Sync {
    fn get_user<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Option<Bytes>>;

    fn put_user<'a>(
        &'a self,
        user_id: &'a str,
        value: &'a [u8],
        ttl: Duration,
        mode: PutMode<'a>,
    ) -> BoxFuture<'a, bool>;
}

impl Error {
    pub(crate) fn load_interrupted() -> Self {
        Self::Interrupted
    }

    pub(crate) fn is_fault(&self) -> bool {
        *self == Self::Fault
    }
}
