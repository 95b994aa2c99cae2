use redis::Value;

use super::map::redirection;
use crate::store::redis::{
    conn::link::Answer,
    wire::{address::Address, fault::Fault},
};

/// Whether a node redirects to another one.
pub(super) fn is_from_wrong_node(reply: &Value) -> bool {
    Fault::of_reply(reply).is_some_and(Fault::is_wrong_node)
}

/// A redirection of commands to another node.
pub(super) enum Redirect {
    /// Permanent, for all commands (`MOVED`).
    Moved(Address),
    /// Temporary, for the commands that it answers (`ASK`).
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
            match Fault::of_server(error) {
                // If the move ended in between, then the first of them was to ask, and the rest have moved.
                Fault::Moved => return address().map(Self::Moved),
                Fault::Ask if ask.is_none() => ask = address().map(Self::Ask),
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
