//! What only the memory store can show, because its clock can be stopped: times to the nanosecond, and that
//! it frees what has expired.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::advance;
use tower_bearer_session::{
    Error, MemoryStore, OnFull, SessionStore, TokenId, TokenManager, TokenOptions,
    store::{PutMode, SessionRecord},
};

use crate::stores::{HOUR, is_live, limit, listed, live, live_session, session, token_id};

const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);
/// How many expired entries may be there at any moment of a store in use, and how many a call may free.
const BOUND: usize = 16;

/// A session lives exactly as long as it was to: at `expires_at` it is dead, and not a moment before.
#[tokio::test(start_paused = true)]
async fn a_session_lives_exactly_its_ttl() {
    for ttl in [MS, 2 * MS, Duration::from_secs(1), 1000 * HOUR] {
        let store = MemoryStore::new();
        let id = token_id(1);
        populate(&store, ttl).await;
        let created = create(&store, &id, ttl, None).await;
        assert_eq!(created.expires_at, created.created_at + ttl);
        let checked = live(&store, "al", &id).await;
        assert_eq!(checked.now, created.created_at);

        advance(ttl - NS).await;
        let checked = live(&store, "al", &id).await;
        assert_eq!(checked.now, created.expires_at - NS);
        assert_eq!(listed(&store, "al").await, [id]);

        advance(NS).await;
        assert!(!is_live(&store, "al", &id).await);
        assert!(listed(&store, "al").await.is_empty());
        assert!(!store.refresh("al", &id, HOUR).await.unwrap());
        assert!(!store.delete("al", &id).await.unwrap());
        assert!(!is_live(&store, "al", &id).await);
    }
}

/// A refresh counts from now, not from the old expiry; it may shorten as well.
#[tokio::test(start_paused = true)]
async fn a_refresh_counts_from_now() {
    let (store, id) = (MemoryStore::new(), token_id(1));
    let created = create(&store, &id, 10 * MS, None).await;
    for ttl in [10 * MS, 30 * MS, 5 * MS] {
        advance(4 * MS).await;
        assert!(store.refresh("al", &id, ttl).await.unwrap());
        let checked = live(&store, "al", &id).await;
        assert_eq!(checked.session.refreshed_at, checked.now);
        assert_eq!(checked.session.expires_at, checked.now + ttl);
        assert_eq!(checked.session.created_at, created.created_at);
    }
    advance(5 * MS - NS).await;
    assert!(is_live(&store, "al", &id).await);
    advance(NS).await;
    assert!(!is_live(&store, "al", &id).await);
}

/// No refresh moves a session past its absolute end.
#[tokio::test(start_paused = true)]
async fn the_absolute_end_is_the_end() {
    let (store, id) = (MemoryStore::new(), token_id(1));
    let created = create(&store, &id, 10 * MS, Some(25 * MS)).await;
    let end = created.created_at + 25 * MS;
    assert_eq!(created.ends_at, Some(end));
    for expected in [18 * MS, 25 * MS, 25 * MS] {
        advance(8 * MS).await;
        assert!(store.refresh("al", &id, 10 * MS).await.unwrap());
        let session = live_session(&store, "al", &id).await;
        assert_eq!(session.expires_at, created.created_at + expected);
    }
    advance(MS - NS).await;
    assert!(store.refresh("al", &id, HOUR).await.unwrap());
    advance(NS).await;
    assert!(!is_live(&store, "al", &id).await);

    let id = token_id(2);
    let created = create(&store, &id, HOUR, Some(MS)).await;
    assert_eq!(created.expires_at, created.created_at + MS);
    advance(MS).await;
    assert!(!is_live(&store, "al", &id).await);
}

/// A cached user lives exactly as long as it was to, and its place is free after that.
#[tokio::test(start_paused = true)]
async fn a_cached_user_lives_exactly_its_ttl() {
    let store = MemoryStore::new();
    populate(&store, MS).await;
    let (replace, fill) = (PutMode::Replace, PutMode::IfUnchanged(None));
    assert!(store.put_user("al", b"1", MS, fill).await.unwrap());
    advance(MS - NS).await;
    assert!(!store.put_user("al", b"2", MS, fill).await.unwrap());
    assert_eq!(store.get_user("al").await.unwrap().unwrap(), "1");
    advance(NS).await;
    assert_eq!(store.get_user("al").await.unwrap(), None);
    let seen = PutMode::IfUnchanged(Some(b"1"));
    assert!(!store.put_user("al", b"2", MS, seen).await.unwrap());
    assert!(store.put_user("al", b"2", MS, fill).await.unwrap());
    // What replaces a value brings its own time.
    assert!(store.put_user("al", b"3", 3 * MS, replace).await.unwrap());
    advance(3 * MS - NS).await;
    assert_eq!(store.get_user("al").await.unwrap().unwrap(), "3");
    assert!(store.put_user("al", b"4", MS, replace).await.unwrap());
    advance(MS).await;
    assert_eq!(store.get_user("al").await.unwrap(), None);
}

/// What a manager tells of a token's time is what the clock says.
#[tokio::test(start_paused = true)]
async fn a_manager_tells_the_time_to_the_moment() {
    let manager: TokenManager = TokenManager::new(MemoryStore::new());
    let options = TokenOptions::new()
        .ttl(10 * MS)
        .max_lifetime(Duration::from_micros(24_001));
    let issued = manager.set_token_with("al", options).await.unwrap();
    let token = issued.token.expose_secret();
    let remaining = async || {
        let user = manager.check_token(token).await.unwrap();
        user.map(|user| user.token_remaining().unwrap())
    };
    assert_eq!(remaining().await, Some(10 * MS));
    for (refreshed, left) in [(false, 6), (true, 10), (true, 10), (true, 9), (false, 5)] {
        advance(4 * MS).await;
        if refreshed {
            assert!(manager.refresh_token(token, 10 * MS).await.unwrap());
        }
        assert_eq!(remaining().await, Some(left * MS));
    }
    // Fractions of a millisecond are rounded up, here to 25 ms.
    advance(5 * MS - NS).await;
    assert_eq!(remaining().await, Some(NS));
    advance(NS).await;
    assert_eq!(remaining().await, None);
    assert!(!manager.refresh_token(token, None).await.unwrap());
}

/// Everything that has expired is freed by and by, by whatever calls there are; each does a little.
#[tokio::test(start_paused = true)]
async fn what_has_expired_is_freed_by_any_call() {
    let store = MemoryStore::new();
    let (keeper, other) = (token_id(0), token_id(1));
    store
        .put_user("keeper", b"1", HOUR, PutMode::Replace)
        .await
        .unwrap();
    create(&store, &keeper, HOUR, None).await;
    for number in 0..10_000 {
        let user = format!("user {}", number % 3000);
        let new = session(MS + MS * u32::from(number % 7 == 0));
        store
            .create(&user, &token_id(number), &new, None)
            .await
            .unwrap();
        if number < 3000 {
            let mode = PutMode::Replace;
            store
                .put_user(&user, b"cached", 2 * MS, mode)
                .await
                .unwrap();
        }
    }
    assert_eq!(store.len(), 13_002);
    advance(2 * MS).await;
    let mut calls = 0;
    while store.len() > 2 {
        let before = store.len();
        match calls % 8 {
            0 => drop(store.check("al", &keeper).await.unwrap()),
            1 => drop(store.check("nobody", &other).await.unwrap()),
            2 => assert!(store.refresh("al", &keeper, HOUR).await.unwrap()),
            3 => assert!(!store.delete("nobody", &other).await.unwrap()),
            4 => assert_eq!(store.delete_all("nobody", None).await.unwrap(), 0),
            5 => assert_eq!(listed(&store, "al").await, [keeper]),
            6 => assert!(store.get_user("keeper").await.unwrap().is_some()),
            _ => {
                let mode = PutMode::Replace;
                assert!(store.put_user("keeper", b"1", HOUR, mode).await.unwrap());
            }
        }
        let freed = before - store.len();
        assert!((1..=BOUND).contains(&freed), "{freed} freed by a call");
        calls += 1;
    }
    println!("13,000 expired entries freed in {calls} calls");
    assert!(is_live(&store, "al", &keeper).await);
    assert!(store.get_user("keeper").await.unwrap().is_some());
}

/// A store in use holds hardly more than what is live, however many short logins come.
#[tokio::test(start_paused = true)]
async fn dead_entries_do_not_pile_up() {
    let store = MemoryStore::new();
    // For how many milliseconds the nth login lives: most shortly, some long, some refreshed.
    let ttl = |number: u32| match number % 10 {
        0 => 1000,
        1..4 => 100,
        _ => 10,
    };
    let mut most = 0;
    for number in 0..20_000 {
        let (user, id) = (format!("user {}", number % 50), token_id(number.into()));
        let new = session(MS * ttl(number));
        store.create(&user, &id, &new, None).await.unwrap();
        let cache = store.put_user(&user, b"x", 20 * MS, PutMode::Replace);
        assert!(cache.await.unwrap());
        if number % 5 == 0 {
            assert!(store.refresh(&user, &id, MS * ttl(number)).await.unwrap());
        }
        advance(MS).await;
        // Those who logged in within their time to live, and twenty cached users.
        let live = (0..=number.min(1000))
            .filter(|ago| ttl(number - ago) > ago + 1)
            .count();
        most = most.max(store.len().saturating_sub(live + 20));
    }
    println!("at most {most} dead entries");
    assert!(most <= BOUND, "{most} dead entries");
}

/// Replacing, refreshing, evicting and deleting leave nothing behind.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_twice() {
    let (store, evicting) = (MemoryStore::new(), limit(1, OnFull::EvictOldest));
    assert!(store.is_empty());
    for number in 0..100 {
        let (id, new) = (token_id(number), session(HOUR));
        let created = store.create("al", &id, &new, evicting).await.unwrap();
        assert_eq!(created.evicted.len(), usize::from(number > 0));
        for minutes in 1..10 {
            advance(MS).await;
            let ttl = Duration::from_secs(60 * minutes);
            assert!(store.refresh("al", &token_id(number), ttl).await.unwrap());
            let mode = PutMode::Replace;
            assert!(store.put_user("al", b"x", ttl, mode).await.unwrap());
        }
        assert_eq!(store.len(), 2);
    }
    assert!(store.delete("al", &token_id(99)).await.unwrap());
    assert_eq!(store.len(), 1);
    for number in 0..100 {
        create(&store, &token_id(number), HOUR, None).await;
        create(&store, &token_id(number), HOUR, None).await;
    }
    assert_eq!(store.len(), 101);
    let keep = token_id(7);
    assert_eq!(store.delete_all("al", Some(&keep)).await.unwrap(), 99);
    assert_eq!(store.len(), 2);
    assert_eq!(store.delete_all("al", None).await.unwrap(), 1);
    assert_eq!(store.len(), 1);
    advance(HOUR).await;
    assert_eq!(store.get_user("al").await.unwrap(), None);
    assert!(store.is_empty());
}

/// A clone is another handle on the same sessions, another store is not.
#[tokio::test]
async fn a_clone_is_the_same_store() {
    let (store, id) = (MemoryStore::new(), token_id(1));
    let clone = store.clone();
    create(&store, &id, HOUR, None).await;
    assert!(is_live(&clone, "al", &id).await);
    assert!(clone.delete("al", &id).await.unwrap());
    assert!(!is_live(&store, "al", &id).await);
    create(&store, &id, HOUR, None).await;
    assert!(!is_live(&MemoryStore::default(), "al", &id).await);
}

/// The detail of a user may do anything when it is dropped, also ask the store.
#[tokio::test]
async fn what_is_removed_is_dropped_without_the_lock() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Detail(String);

    static STORE: OnceLock<MemoryStore> = OnceLock::new();
    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    impl Drop for Detail {
        fn drop(&mut self) {
            assert!(STORE.get().is_some_and(|store| !store.is_empty()));
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }

    let store = STORE.get_or_init(MemoryStore::new);
    let work = async {
        let builder = TokenManager::builder(store.clone());
        let manager = builder
            .load_user(async |_: String| Ok::<_, Error>(Some(Detail("x".repeat(900_000)))))
            .max_user_size(1024 * 1024)
            .build()
            .unwrap();
        let token = manager.set_token("al", None).await.unwrap();
        let check = || manager.check_token_or_update_user(token.expose_secret(), None);
        // The second one keeps what it decodes; that is too long for the cache of the manager.
        for _ in 0..2 {
            assert!(check().await.unwrap().is_some());
        }
        let before = DROPPED.load(Ordering::SeqCst);
        manager.delete_user("al").await.unwrap();
        assert_eq!(DROPPED.load(Ordering::SeqCst), before + 1);
    };
    // With the lock, the thread would wait for ever.
    let worker = std::thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work);
    });
    let waiting = async {
        while !worker.is_finished() {
            tokio::time::sleep(MS).await;
        }
    };
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, waiting)
        .await
        .expect("no deadlock");
    worker.join().unwrap();
}

/// So many sessions of somebody else that those which come after them are not freed the moment they expire:
/// it has to be seen that they have.
async fn populate(store: &MemoryStore, ttl: Duration) {
    for number in 0..500 {
        let (id, new) = (token_id(number), session(ttl));
        store.create("a", &id, &new, None).await.expect("a session");
    }
}

/// Starts a session of `al`.
async fn create(
    store: &MemoryStore,
    id: &TokenId,
    ttl: Duration,
    max_lifetime: Option<Duration>,
) -> SessionRecord {
    let mut new = session(ttl);
    new.max_lifetime = max_lifetime;
    store
        .create("al", id, &new, None)
        .await
        .expect("a session")
        .session
}
