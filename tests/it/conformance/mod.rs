//! One suite of the `SessionStore` contract, run by every store; it knows nothing but the trait.
//!
//! What the contract says of calls that run at the same time is in `races`, and random sequences of
//! calls are in `model`.

mod cached_users;
mod check;
mod create;
mod delete;
mod expiry;
mod limits;
mod list;
mod refresh;
mod user_ids;
