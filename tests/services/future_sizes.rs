//! How large the futures of a check are: they are moved to the heap for each check, and a large one costs more than all
//! the rest of the check that is not the server's.

use tower_bearer_session::{
    Error, MySqlStore, RedisStore, SessionStore, TokenId,
    store::{InterceptedStore, StoreCall, StoreInterceptor},
};

/// What an interceptor may add to the future of a call.
const MAX_OF_AN_INTERCEPTOR: usize = 256;
/// Rust 1.95 makes it 2,128 bytes, two thirds of them the client's; the rest of the bound is for other compilers.
const MAX_OF_A_CHECK_ON_REDIS: usize = 2304;

struct Passing;

impl StoreInterceptor for Passing {
    async fn intercept<T: Send>(
        &self,
        _: StoreCall<'_>,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        answer.await
    }
}

#[test]
fn an_interceptor_does_not_copy_the_call() {
    for (store, alone, intercepted) in [
        (
            "Redis",
            of_check::<RedisStore>(),
            of_check::<InterceptedStore<RedisStore, Passing>>(),
        ),
        (
            "MySQL",
            of_check::<MySqlStore>(),
            of_check::<InterceptedStore<MySqlStore, Passing>>(),
        ),
    ] {
        println!("{store}: {alone} bytes, intercepted {intercepted}");
        assert!(
            intercepted <= alone + MAX_OF_AN_INTERCEPTOR,
            "{store}: {alone} bytes, intercepted {intercepted}"
        );
    }
}

#[test]
fn what_a_check_on_redis_seldom_needs_is_not_in_its_future() {
    let size = of_check::<RedisStore>();
    assert!(size <= MAX_OF_A_CHECK_ON_REDIS, "{size} bytes");
}

fn of_check<S: SessionStore>() -> usize {
    fn of<'a, S: 'a, F: Future>(_: impl Fn(&'a S, &'a str, &'a TokenId) -> F) -> usize {
        size_of::<F>()
    }
    of(|store: &S, user_id, token_id| store.check(user_id, token_id))
}
