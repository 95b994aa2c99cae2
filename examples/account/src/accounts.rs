//! Stands for a database of users.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The application's data of a user.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) is_admin: bool,
}

/// A real one has hashes in place of the passwords.
pub(crate) struct Accounts(HashMap<String, (Profile, String)>);

impl Accounts {
    pub(crate) fn new() -> Self {
        let account = |id: &str, name: &str, is_admin, password: &str| {
            let name = name.to_owned();
            let profile = Profile { name, is_admin };
            (id.to_owned(), (profile, password.to_owned()))
        };
        Self(HashMap::from([
            account("alice", "Alice Liddell", false, "wonderland"),
            account("queen", "The Queen of Hearts", true, "off with their heads"),
        ]))
    }

    pub(crate) fn profile(&self, id: &str) -> Option<Profile> {
        self.0.get(id).map(|(profile, _)| profile.clone())
    }

    pub(crate) fn check(&self, id: &str, password: &str) -> bool {
        self.0.get(id).is_some_and(|(_, right)| right == password)
    }

    pub(crate) fn change_password(&mut self, id: &str, old: &str, new: String) -> bool {
        let is_right = self.check(id, old);
        if is_right && let Some((_, password)) = self.0.get_mut(id) {
            *password = new;
        }
        is_right
    }

    pub(crate) fn close(&mut self, id: &str) {
        self.0.remove(id);
    }
}
