//! The loads of users, by the sources of the manager. The rest of the manager is short here.

mod background;
#[path = "../../../src/manager/flight.rs"]
mod flight;
#[path = "../../../src/manager/load.rs"]
mod load;
mod loader;
mod slot;
mod tests;
mod world;
