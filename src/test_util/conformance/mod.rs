//! Conformance tests of the [`SessionStore`](crate::SessionStore) contract, one function per rule.
//!
//! These functions are not public API; [`store_conformance_tests!`](crate::store_conformance_tests) is.

use super::Backend;

mod cached_users;
mod check;
mod concurrency;
mod create;
mod delete;
mod expiry;
mod extremes;
pub mod helpers;
mod limits;
mod list;
mod refresh;
mod rotation;
mod update;
mod user_ids;
mod users;

/// Generates a test for each rule of the [`SessionStore`](crate::SessionStore) contract.
///
/// The argument is an async closure or function that returns a new and empty store, or another
/// [`Backend`](crate::test_util::Backend). It is called once per test. The name of a failing test is the broken rule,
/// and the source where it panics states the rule in full. Use the macro in a module of its own. The tests run on a
/// multi-threaded tokio runtime, and need nothing but this crate. Later versions may add rules.
///
/// ```
/// # use tower_bearer_session::MemoryStore as MyStore;
/// #[cfg(test)]
/// mod conformance {
///     use super::MyStore;
///
///     tower_bearer_session::store_conformance_tests!(async || MyStore::new());
/// }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[macro_export]
macro_rules! store_conformance_tests {
    ($new:expr $(,)?) => {
        async fn new_backend() -> impl $crate::test_util::Backend {
            $crate::test_util::conformance::call($new).await
        }

        $crate::__store_conformance_points!([$crate::__store_conformance_tests]);
    };
}

/// Calls the macro in brackets with all rules, by subject.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_points {
    ([$($then:tt)*]) => {
        $($then)*! {
            cached_users {
                replace_always_writes,
                if_none_writes_only_once,
                if_unchanged_compares_the_bytes,
                a_refused_put_changes_nothing,
                every_put_sets_the_ttl_anew,
                values_are_opaque_and_may_be_large,
                values_belong_to_their_user_and_need_no_session,
                repeated_puts_leave_what_one_leaves,
            }
            check {
                what_was_never_created_is_not_live,
                a_check_brings_the_cached_user,
                an_answer_at_once_is_that_of_a_check,
                a_check_writes_nothing,
                the_time_of_a_check_is_the_stores_and_goes_forward,
                every_handle_sees_the_same,
            }
            concurrency {
                one_of_many_deletes_ends_the_session,
                every_session_is_ended_once,
                one_of_many_conditional_puts_wins,
                one_of_many_conditional_updates_wins,
                a_conditional_update_never_overwrites_a_refresh,
                the_limit_holds_when_logins_come_at_once,
                a_delete_beats_checks_and_refreshes,
                one_of_many_replacements_wins,
                a_delete_beats_replacements,
                the_limit_holds_through_replacements,
            }
            create {
                a_new_session_is_live_and_as_ordered,
                the_absolute_end_caps_the_expiry,
                repeating_a_live_session_changes_nothing,
                a_session_belongs_to_its_user,
                metadata_is_kept_byte_for_byte,
                empty_metadata_is_no_metadata,
                durations_are_kept_to_the_millisecond,
                the_longest_and_the_shortest_durations_work,
            }
            delete {
                a_session_is_deleted_once,
                deleting_what_never_was_is_false,
                a_deleted_session_can_be_created_anew,
                delete_all_ends_all_sessions_of_the_user_only,
                delete_all_keeps_the_excepted_session,
                an_exception_that_is_not_live_keeps_nothing,
                delete_all_of_thousands_is_complete,
                sessions_after_delete_all_live,
                deletes_leave_the_cached_user,
            }
            expiry {
                expired_sessions_are_not_live_and_not_listed,
                deleting_an_expired_session_is_false,
                an_expired_session_can_be_created_anew,
                an_expired_session_is_no_exception,
                an_expired_session_ends_no_others,
                the_others_end_beside_expired_ones,
                expired_sessions_do_not_count_for_the_limit,
                expired_values_are_none,
                an_absolute_end_that_is_reached_ends_the_session,
            }
            extremes {
                the_largest_session_gets_another_token,
                the_longest_grace_and_ttl_work,
            }
            limits {
                below_the_limit_nobody_goes,
                the_oldest_goes_first,
                the_least_recently_refreshed_goes_first,
                a_refresh_does_not_make_a_session_younger,
                a_lower_limit_evicts_several_first_to_go_first,
                evicted_sessions_are_reported_as_they_were,
                sessions_of_the_same_moment_are_evicted_all_the_same,
                reject_refuses_and_changes_nothing,
                a_repeat_at_the_limit_is_no_new_session,
                what_was_deleted_makes_room,
                a_limit_is_for_one_user,
                the_largest_limit_holds,
                a_new_limit_holds_for_thousands,
            }
            list {
                an_unknown_user_has_none,
                the_oldest_comes_first,
                a_list_tells_what_a_check_tells,
                thousands_are_all_there_once,
                what_lives_throughout_is_listed_once,
            }
            refresh {
                a_refresh_moves_the_expiry_and_nothing_else,
                a_refresh_may_shorten,
                a_shortened_session_dies_early,
                a_refresh_never_passes_the_absolute_end,
                a_refresh_creates_nothing,
                a_refresh_never_brings_a_session_back,
                a_refresh_touches_one_session_only,
            }
            rotation {
                a_new_token_replaces_the_current_one,
                a_replacement_changes_the_rest_in_the_same_step,
                a_replaced_token_can_be_used_for_its_grace,
                an_update_of_another_token_changes_nothing,
                repeating_a_replacement_changes_nothing,
                the_latest_replaced_tokens_are_kept,
                a_replacement_can_be_undone,
                replaced_tokens_count_for_no_limit,
                a_session_begins_with_its_first_token,
                a_replacement_never_passes_the_absolute_end,
            }
            update {
                an_update_changes_what_it_names_and_nothing_else,
                an_update_creates_nothing,
                an_update_can_end_the_other_sessions,
                an_update_can_end_thousands_of_sessions,
                an_update_of_another_version_changes_nothing,
                an_update_of_the_current_version_works_once,
                an_update_on_condition_of_the_metadata_works_once,
                a_conditional_update_never_brings_a_session_back,
                a_store_that_works_says_so,
            }
            user_ids {
                any_user_id_works,
                no_two_user_ids_are_one,
            }
            users {
                without_sessions_nobody_is_listed,
                any_user_id_is_listed_as_it_is,
                thousands_of_users_are_all_listed,
                a_page_is_bounded,
                a_cursor_is_its_text,
                who_logged_out_is_not_listed,
                who_is_only_cached_is_not_listed,
                one_live_session_is_enough,
                who_has_sessions_throughout_is_listed,
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_tests {
    ($($subject:ident { $($point:ident,)* })*) => {
        $(
            mod $subject {
                $(
                    #[test]
                    fn $point() {
                        $crate::test_util::conformance::run(
                            super::new_backend,
                            $crate::test_util::conformance::points::$subject::$point,
                        );
                    }
                )*
            }
        )*
    };
}

/// Re-exports the tests in the list, so that a test that is not listed is dead code.
macro_rules! export {
    ($($subject:ident { $($point:ident,)* })*) => {
        pub mod points {
            $(
                pub mod $subject {
                    pub use super::super::$subject::{$($point),*};
                }
            )*
        }
    };
}

crate::__store_conformance_points!([export]);

pub async fn call<B: Backend>(new: impl AsyncFnOnce() -> B) -> B {
    new().await
}

/// Runs the test of one rule on a new backend.
pub fn run<B: Backend>(new: impl AsyncFnOnce() -> B, point: impl AsyncFnOnce(&B)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build();
    let test = async {
        let backend = new().await;
        point(&backend).await;
    };
    runtime.expect("a tokio runtime").block_on(test);
}
