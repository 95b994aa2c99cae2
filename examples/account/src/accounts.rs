//! Stands for a database of users.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// The application's data of a user.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) is_admin: bool,
}

/// A real one has hashes in place of the passwords.
pub(crate) struct Accounts(Mutex<HashMap<String, (Profile, String)>>);

impl Accounts {
    pub(crate) fn new() -> Self {
        let account = |id: &str, name: &str, is_admin, password: &str| {
            let name = name.to_owned();
            let profile = Profile { name, is_admin };
            (id.to_owned(), (profile, password.to_owned()))
        };
        Self(Mutex::new(HashMap::from([
            account("alice", "Alice Liddell", false, "wonderland"),
            account("queen", "The Queen of Hearts", true, "off with their heads"),
        ])))
    }

    pub(crate) fn profile(&self, id: &str) -> Option<Profile> {
        self.lock().get(id).map(|(profile, _)| profile.clone())
    }

    pub(crate) fn check(&self, id: &str, password: &str) -> bool {
        let accounts = self.lock();
        accounts.get(id).is_some_and(|(_, right)| right == password)
    }

    /// Sets the password. A repetition works, too: after a fault, the caller has not ended the other sessions yet.
    pub(crate) fn change_password(&self, id: &str, old: &str, new: String) -> bool {
        match self.lock().get_mut(id) {
            Some((_, password)) if password == old || *password == new => {
                *password = new;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn close(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Profile, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
