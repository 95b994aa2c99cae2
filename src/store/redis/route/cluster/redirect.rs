use redis::Value;

use super::map::redirection;
use crate::store::redis::{
    conn::link::Answer,
    wire::{address::Address, fault::Fault},
};

/// Whether this reply means that the node is not the one to ask.
pub(super) fn is_from_wrong_node(reply: &Value) -> bool {
    Fault::of_reply(reply).is_some_and(Fault::is_wrong_node)
}

/// A redirection of commands to another node.
pub(super) enum Redirect {
    /// Permanent, for all commands (`MOVED`).
    Moved(Address),
    /// Temporary, for the redirected commands only (`ASK`).
    Ask(Address),
}

impl Redirect {
    /// The redirection in the replies of the node at the address `asked`; `None` if there is none, or if the node does
    /// not know the target address.
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
                // If the migration ended between two commands, replies with `ASK` precede those with `MOVED`.
                Fault::Moved => return address().map(Self::Moved),
                Fault::Ask if ask.is_none() => ask = address().map(Self::Ask),
                _ => {}
            }
        }
        ask
    }

    /// The redirection in an answer; see [`of`](Self::of).
    pub(super) fn of_answer(answer: &Answer) -> Option<Self> {
        Self::of(&answer.values, &answer.live.connected.address)
    }
}
