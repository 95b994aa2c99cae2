//! The operations of a worker on cached values.

use std::mem;

use tower_bearer_session::{SessionStore, store::PutMode};

use crate::{
    model::{Asked, Evidence},
    stores::HOUR,
    worker::Worker,
};

impl<S: SessionStore + Clone> Worker<S> {
    pub(super) async fn put_user(&mut self, user: usize) {
        let (number, at) = (self.fresh(), self.random_store());
        let (store, name) = self.store_and_name(user, at);
        let old = self.users[user].value.clone();
        let unchanged = match &old.may_be[..] {
            [before] if self.random.below(3) == 0 => Some(before.map(u64::to_be_bytes)),
            _ => None,
        };
        let mode = match &unchanged {
            Some(before) => PutMode::IfUnchanged(before.as_ref().map(<[u8; 8]>::as_slice)),
            None => PutMode::Replace,
        };
        let what = format!(
            "store {at} put {number:x}, if unchanged: {}",
            unchanged.is_some()
        );
        let bytes = number.to_be_bytes();
        let put = store.put_user(&name, &bytes, HOUR, mode);
        let (asked, outcome) = self.call(user, what, put).await;
        // Nobody confirms it.
        let evidence = self.acknowledged(asked, false);
        let value = &mut self.users[user].value;
        match outcome {
            Ok(true) => {
                value.may_be = vec![Some(number)];
                value.evidence = evidence;
            }
            // Changed by itself: by the first try, or by a failover.
            Ok(false) if unchanged.is_some() => value.may_be.push(Some(number)),
            Ok(false) => self.wrong(user, "a value was not replaced"),
            Err(_) => value.may_be.push(Some(number)),
        }
    }

    pub(super) async fn get_user(&mut self, user: usize) {
        let at = self.random_store();
        let (store, name) = self.store_and_name(user, at);
        let mut found = None;
        let get = async {
            found = store.get_user(&name).await?;
            Ok(found.is_some())
        };
        let (asked, outcome) = self.call(user, format!("store {at} get"), get).await;
        if outcome.is_ok() {
            self.value_is(user, found.as_deref(), asked);
        }
    }

    /// Judges a cached value.
    pub(super) fn value_is(&mut self, user: usize, found: Option<&[u8]>, asked: Asked) {
        let found = found.map(|it| it.try_into().map_or(0, u64::from_be_bytes));
        let value = &mut self.users[user].value;
        let (may_be, before) = (mem::replace(&mut value.may_be, vec![found]), value.evidence);
        if may_be != [found] {
            value.evidence = Evidence::seen(asked);
        }
        if !may_be.contains(&found) {
            self.object(
                user,
                format!("the value is {found:x?}, not {may_be:x?}"),
                before,
            );
        }
    }
}
