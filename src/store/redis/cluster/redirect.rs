use redis::Value;

use super::{
    super::{dial::Address, errors::server_code, link::Answer},
    map::redirection,
};

/// Whether a node says that it is not the one to ask.
pub(super) fn is_unfit(value: &Value) -> bool {
    let codes = ["MOVED", "CLUSTERDOWN", "MASTERDOWN", "READONLY"];
    matches!(value, Value::ServerError(error) if codes.contains(&server_code(error)))
}

/// Where else commands have to go.
pub(super) enum Redirect {
    /// For ever: all of them.
    Moved(Address),
    /// For now: those that it is the answer to.
    Ask(Address),
}

impl Redirect {
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let asked = &answer.live.connected.address;
        let find = |wanted: &str| {
            answer.values.iter().find_map(|value| match value {
                Value::ServerError(error) if server_code(error) == wanted => {
                    redirection(error.details().unwrap_or_default(), asked)
                }
                _ => None,
            })
        };
        // If the move ended in between, then the first of them was to ask, and the rest have moved.
        let moved = find("MOVED").map(Self::Moved);
        moved.or_else(|| find("ASK").map(Self::Ask))
    }
}
