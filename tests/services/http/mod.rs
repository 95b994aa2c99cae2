//! End to end: real services, real TCP, a real HTTP client.

mod cookies;
mod errors;
mod gateway;
mod on_axum;
mod on_hyper;
mod options;
mod rejections;
mod two_services;

use support::app::{Client, Profile, Server, app, builder};
