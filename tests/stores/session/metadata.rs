//! Changes of the metadata of a session.

use std::sync::Arc;

use serde_json::{Value, json};
use tower_bearer_session::{
    ErrorKind, MemoryStore, ReplaceOptions, Replacement, TokenManager, TokenOptions,
    store::Operation, test_util::Faults,
};

use super::{manager, session_of};
use crate::stores::{Backend, HOUR, on_every_store};

on_every_store!(
    a_change_of_the_metadata_keeps_the_rest,
    concurrent_changes_of_the_metadata_all_count,
    equal_changes_of_the_metadata_all_count,
    a_replacement_and_a_change_of_the_metadata_both_count,
    the_metadata_of_an_ended_session_do_not_change,
);

async fn a_change_of_the_metadata_keeps_the_rest(backend: &impl Backend) {
    let manager = manager(backend).await;
    let options = TokenOptions::new()
        .metadata("name", "phone")
        .scopes(["read", "write"]);
    let token = manager.set_token_with("al", options).await.unwrap().token;
    let session = session_of(&manager, &token).await.unwrap();
    let changed = session.update_metadata(|metadata| {
        metadata.insert("theme".into(), json!("dark"));
    });
    let changed = Value::Object(changed.await.unwrap().unwrap());
    assert_eq!(changed, json!({ "name": "phone", "theme": "dark" }));
    // By the handle, without a request; and not from what an old check knew.
    let renamed = manager.update_token_metadata("al", token.id(), |metadata| {
        metadata["name"] = json!("tablet");
    });
    renamed.await.unwrap().unwrap();
    let removed = session.update_metadata(|metadata| {
        metadata.remove("theme");
    });
    assert_eq!(
        Value::Object(removed.await.unwrap().unwrap()),
        json!({ "name": "tablet" })
    );
    let after = session_of(&manager, &token).await.unwrap();
    assert_eq!(Value::Object(after.metadata()), json!({ "name": "tablet" }));
    assert_eq!(after.scopes().to_string(), "read write");
    assert_eq!(after.created_at(), session.created_at());
    assert_eq!(after.expires_at(), session.expires_at());
    let emptied = after.update_metadata(serde_json::Map::clear);
    assert_eq!(emptied.await.unwrap().unwrap().len(), 0);
    let after = session_of(&manager, &token).await.unwrap();
    assert_eq!(
        (after.metadata().len(), after.scopes().is_empty()),
        (0, false)
    );
}

async fn concurrent_changes_of_the_metadata_all_count(backend: &impl Backend) {
    const TASKS: usize = 6;
    let manager = manager(backend).await;
    let token = Arc::new(manager.set_token("al", HOUR).await.unwrap());
    // A change fails only if each of 16 attempts met another change, and there are fewer.
    let tasks = (0..TASKS).map(|task| {
        let (manager, token) = (manager.clone(), Arc::clone(&token));
        tokio::spawn(async move {
            for n in 0..2 {
                let changed = manager.update_token_metadata("al", token.id(), |metadata| {
                    metadata.insert(format!("{task}.{n}"), json!(n));
                });
                changed.await.unwrap().unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let session = session_of(&manager, &token).await.unwrap();
    assert_eq!(session.metadata().len(), 2 * TASKS);
}

/// Each task sees what the one before it has written, although all of them would write the same.
async fn equal_changes_of_the_metadata_all_count(backend: &impl Backend) {
    const TASKS: u64 = 6;
    let manager = manager(backend).await;
    let token = Arc::new(manager.set_token("al", HOUR).await.unwrap());
    let stale = session_of(&manager, &token).await.unwrap();
    let count = |metadata: &mut serde_json::Map<String, Value>| {
        let tries = metadata.get("tries").and_then(Value::as_u64);
        metadata.insert("tries".into(), json!(tries.unwrap_or_default() + 1));
    };
    let tasks = (0..TASKS).map(|_| {
        let (manager, token) = (manager.clone(), Arc::clone(&token));
        tokio::spawn(async move {
            let changed = manager.update_token_metadata("al", token.id(), count);
            changed.await.unwrap().unwrap();
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    // The handle does not know of them.
    let changed = stale.update_metadata(count).await.unwrap().unwrap();
    assert_eq!(changed["tries"], TASKS + 1);
    let session = session_of(&manager, &token).await.unwrap();
    assert_eq!(session.metadata()["tries"], TASKS + 1);
}

/// Each of both is on condition of what the other one changes.
async fn a_replacement_and_a_change_of_the_metadata_both_count(backend: &impl Backend) {
    let manager = manager(backend).await;
    let options = TokenOptions::new()
        .metadata("name", "phone")
        .scopes(["read"]);
    let token = manager.set_token_with("al", options).await.unwrap().token;
    let old = session_of(&manager, &token).await.unwrap();
    let changed = old.update_metadata(|metadata| {
        metadata.insert("theme".into(), json!("dark"));
    });
    changed.await.unwrap().unwrap();
    // The handle does not know of the change.
    let options = ReplaceOptions::new()
        .metadata("name", "tablet")
        .scopes(["write"]);
    let replaced = old.replace_token(options).await.unwrap();
    let Replacement::Replaced { issued, .. } = replaced else {
        panic!("the token is current");
    };
    let session = session_of(&manager, &issued.token).await.unwrap();
    let expected = json!({ "name": "tablet", "theme": "dark" });
    assert_eq!(Value::Object(session.metadata()), expected);
    assert_eq!(session.scopes().to_string(), "write");

    // A replacement that names neither keeps both.
    let replaced = session.replace_token(ReplaceOptions::new()).await.unwrap();
    let Replacement::Replaced { issued, .. } = replaced else {
        panic!("the token is current");
    };
    let session = session_of(&manager, &issued.token).await.unwrap();
    assert_eq!(Value::Object(session.metadata()), expected);
    assert_eq!(session.scopes().to_string(), "write");
    let listed = manager.list_user_tokens("al").await.unwrap();
    assert_eq!(Value::Object(listed[0].metadata().clone()), expected);
    assert_eq!(listed[0].scopes(), &session.scopes());
}

async fn the_metadata_of_an_ended_session_do_not_change(backend: &impl Backend) {
    let manager = manager(backend).await;
    let token = manager.set_token("al", HOUR).await.unwrap();
    let session = session_of(&manager, &token).await.unwrap();
    session.log_out().await.unwrap();
    let changed = session.update_metadata(|metadata| {
        metadata.insert("name".into(), json!("ghost"));
    });
    assert_eq!(changed.await.unwrap(), None);
    let unasked = manager.update_token_metadata("al", token.id(), |_| panic!("no session"));
    assert_eq!(unasked.await.unwrap(), None);
    assert_eq!(manager.list_user_tokens("al").await.unwrap(), []);
}

#[tokio::test]
async fn metadata_that_cannot_be_change_nothing() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let options = TokenOptions::new().metadata("name", "phone");
    let token = manager.set_token_with("al", options).await.unwrap().token;
    let session = session_of(&manager, &token).await.unwrap();
    let too_much = session.update_metadata(|metadata| {
        metadata.insert("name".into(), json!("x".repeat(1024)));
    });
    assert_eq!(too_much.await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let scope = session.update_metadata(|metadata| {
        metadata.insert("scope".into(), json!("admin"));
    });
    assert_eq!(scope.await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // It can be written, but not be read back.
    let deep = (0..127).fold(json!(1), |inner, _| json!([inner]));
    let nested = session.update_metadata(|metadata| {
        metadata.insert("name".into(), deep.clone());
    });
    assert_eq!(nested.await.unwrap_err().kind(), ErrorKind::InvalidInput);
    for options in [
        ReplaceOptions::new().metadata("name", deep.clone()),
        ReplaceOptions::new().metadata("name", "x".repeat(1024)),
        ReplaceOptions::new().metadata("rest", "x".repeat(1000)),
        ReplaceOptions::new().metadata("scope", "admin"),
        ReplaceOptions::new().scopes(["not one"]),
    ] {
        let refused = manager.replace_token(token.expose_secret(), options).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let same = session_of(&manager, &token).await.unwrap();
    assert_eq!(Value::Object(same.metadata()), json!({ "name": "phone" }));
    assert!(same.scopes().is_empty());
}

/// One call for a handler, whose request has been checked; two by the handle of a session.
#[tokio::test]
async fn a_change_of_the_metadata_takes_one_call_in_a_handler() {
    let faults = Faults::new();
    let manager: TokenManager = TokenManager::new(faults.wrap(MemoryStore::new()));
    let token = manager.set_token("al", HOUR).await.unwrap();
    let session = session_of(&manager, &token).await.unwrap();
    let before = faults.calls();
    session.update_metadata(|_| ()).await.unwrap().unwrap();
    session.mark_authenticated().await.unwrap();
    assert_eq!(faults.calls() - before, 2);
    let changed = manager.update_token_metadata("al", token.id(), |_| ());
    changed.await.unwrap().unwrap();
    assert_eq!(faults.calls() - before, 4);
    faults.on(Operation::Update).fail(ErrorKind::Timeout);
    let failed = session.update_metadata(|_| ()).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Timeout);
}
