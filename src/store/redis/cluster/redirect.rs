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
        replies: impl IntoIterator<Item = &'a Value>,
        asked: &Address,
    ) -> Option<Self> {
        let mut ask = None;
        for reply in replies {
            let Value::ServerError(error) = reply else {
                continue;
            };
            let address = || redirection(error.details().unwrap_or_default(), asked);
            match server_code(error) {
                // If the move ended in between, then the first of them was to ask, and the rest have moved.
                "MOVED" => return address().map(Self::Moved),
                "ASK" if ask.is_none() => ask = address().map(Self::Ask),
                _ => {}
            }
        }
        ask
    }

    /// The same of an answer.
    pub(super) fn of_answer(answer: &Answer) -> Option<Self> {
        Self::of(&answer.values, &answer.live.connected.address)
    }
}
