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
    /// Where the node that answered from this address sends the commands of these replies; `None` if nowhere, or if it
    /// does not know the address.
    pub(super) fn of<'a>(
        replies: impl IntoIterator<Item = &'a Value> + Clone,
        asked: &Address,
    ) -> Option<Self> {
        let find = |wanted: &str| {
            replies.clone().into_iter().find_map(|value| match value {
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

    /// The same of an answer.
    pub(super) fn of_answer(answer: &Answer) -> Option<Self> {
        Self::of(&answer.values, &answer.live.connected.address)
    }
}
