//! Sending commands to the nodes that hold their keys, wherever these are redirected to.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::{Instant, sleep_until};

use super::{
    Cluster, DISAGREEMENT,
    redirect::{Redirect, is_from_wrong_node},
    unavailable,
};
use crate::store::redis::{
    conn::link::{Answer, Failure},
    ops::{
        lookup::{LookupKeys, LookupReply},
        write::Request,
    },
    route::node::{Lane, Node},
    wire::fault::Fault,
};

/// After so many redirections nodes seem to disagree, as they do for a moment when a slot has moved.
const HASTY_REDIRECTIONS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(20);

/// A request about keys in one slot, or about none.
struct Routed<'a> {
    /// One of the keys.
    key: &'a str,
    lane: Lane,
    deadline: Instant,
    request: Request<'a>,
}

impl Cluster {
    /// Looks a session and its user up at the node that holds them.
    pub(crate) async fn look_up(
        &self,
        deadline: Instant,
        keys: &LookupKeys<'_>,
    ) -> Result<LookupReply, Failure> {
        let node = self.find(keys.sessions, deadline).await?;
        let found = match node.lookups.look_up(deadline, keys).await {
            Ok(found) if !found.has_error() => return Ok(found),
            Ok(found) => found,
            Err(failure) => {
                self.shared.outdated.notify_one();
                return Err(failure);
            }
        };
        if found.replies().into_iter().any(is_from_wrong_node) {
            self.shared.outdated.notify_one();
        }
        let asked = node.address();
        let redirect = asked.and_then(|asked| Redirect::of(found.replies(), &asked));
        let Some(redirect) = redirect else {
            return Ok(found);
        };
        // Lookups that have to go elsewhere share no pipeline.
        let routed = Routed {
            key: keys.sessions,
            lane: Lane::Requests,
            deadline,
            request: Request::Read(&keys.commands()),
        };
        // Boxed, so that the future of every other check is small.
        let answer = Box::pin(self.follow(&routed, redirect, found.into_values()));
        LookupReply::of_two_nodes(answer.await?)
    }

    /// Sends a request to the node that holds `key`, and what that node does not execute to where it says; all of
    /// it is about keys in the slot of `key`, or about none.
    pub(crate) async fn send(
        &self,
        key: &str,
        lane: Lane,
        deadline: Instant,
        request: Request<'_>,
    ) -> Result<Answer, Failure> {
        let routed = Routed {
            key,
            lane,
            deadline,
            request,
        };
        let node = self.find(key, deadline).await?;
        let answer = self.send_to(&node, &routed).await?;
        match Redirect::of_answer(&answer) {
            None => Ok(answer),
            Some(redirect) => {
                let followed = self.follow(&routed, redirect, answer.values);
                let mut followed = followed.await?;
                followed.repeated |= answer.repeated;
                Ok(followed)
            }
        }
    }

    async fn send_to(&self, node: &Node, routed: &Routed<'_>) -> Result<Answer, Failure> {
        let link = node.lane(routed.lane);
        let sent = link.request(routed.deadline, routed.request).await;
        if !sent
            .as_ref()
            .is_ok_and(|answer| !answer.values.iter().any(is_from_wrong_node))
        {
            self.shared.outdated.notify_one();
        }
        sent
    }

    /// Follows a redirection, and those that come of it, to an answer; `values` are what the commands returned where
    /// they were sent first.
    async fn follow(
        &self,
        routed: &Routed<'_>,
        mut redirect: Redirect,
        mut values: Vec<Value>,
    ) -> Result<Answer, Failure> {
        let mut repeated = false;
        for redirections in 1.. {
            if redirections > HASTY_REDIRECTIONS {
                sleep_until(routed.deadline.min(Instant::now() + PAUSE)).await;
            }
            if Instant::now() >= routed.deadline {
                break;
            }
            let mut answer = match redirect {
                Redirect::Moved(address) => {
                    let node = self.shared.node_at(address.clone());
                    self.shared.note_move(routed.key, &address, &node);
                    self.send_to(&node, routed).await?
                }
                Redirect::Ask(address) => {
                    let node = self.shared.node_at(address);
                    self.ask(&node, routed, values).await?
                }
            };
            repeated |= answer.repeated;
            match Redirect::of_answer(&answer) {
                None => {
                    answer.repeated = repeated;
                    return Ok(answer);
                }
                Some(next) => (redirect, values) = (next, answer.values),
            }
        }
        Err(Failure::Down(unavailable(DISAGREEMENT)))
    }

    /// While a slot is on the move each of its keys is here or there. Sends what is there to there, and puts the
    /// answers in place.
    async fn ask(
        &self,
        other: &Node,
        routed: &Routed<'_>,
        mut values: Vec<Value>,
    ) -> Result<Answer, Failure> {
        let commands = match routed.request {
            Request::Read(commands) => commands,
            Request::Write(write) => {
                let asking = Routed {
                    request: Request::Write(write.asking()),
                    ..*routed
                };
                let mut there = self.send_to(other, &asking).await?;
                let asking = there.values.len().min(1);
                there.values.drain(..asking);
                return Ok(there);
            }
        };
        let mut asking = Pipeline::new();
        let mut places = Vec::new();
        for (place, command) in commands.cmd_iter().enumerate() {
            if Fault::of_reply(&values[place]) == Some(Fault::Ask) {
                asking.cmd("ASKING").add_command(command.clone());
                places.push(place);
            }
        }
        let asking = Routed {
            request: Request::Read(&asking),
            ..*routed
        };
        let there = self.send_to(other, &asking).await?;
        for (place, value) in places
            .into_iter()
            .zip(there.values.into_iter().skip(1).step_by(2))
        {
            values[place] = value;
        }
        Ok(Answer { values, ..there })
    }
}
