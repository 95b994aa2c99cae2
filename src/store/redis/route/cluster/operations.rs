//! Sends commands to the nodes that hold their keys, and follows redirections.

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
    ops::{lookup::LookupKeys, reply::LookupReply, write::Request},
    route::node::{Lane, Node},
    wire::fault::Fault,
};

/// The number of redirections without a pause. After these, the nodes probably disagree, as they do for a moment when
/// a slot has moved.
const HASTY_REDIRECTIONS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(20);

/// Commands without keys, or with keys that are all in one slot.
struct Routed<'a> {
    /// One of the keys.
    key: &'a str,
    lane: Lane,
    deadline: Instant,
    request: Request<'a>,
}

impl Cluster {
    /// Looks up a session and its user at the node that holds them.
    pub(crate) async fn look_up(
        &self,
        deadline: Instant,
        keys: &LookupKeys<'_>,
    ) -> Result<LookupReply, Failure> {
        let node = self.find(keys.sessions, deadline).await?;
        match self.look_up_at(&node, deadline, keys).await? {
            (found, None) => Ok(found),
            (found, Some(redirect)) => {
                // Boxed, so that the future of every other check is small.
                Box::pin(self.follow_lookup(deadline, keys, found, redirect)).await
            }
        }
    }

    /// Looks up at this node. Also returns where it redirects to.
    async fn look_up_at(
        &self,
        node: &Node,
        deadline: Instant,
        keys: &LookupKeys<'_>,
    ) -> Result<(LookupReply, Option<Redirect>), Failure> {
        let found = match node.lookups.look_up(deadline, keys).await {
            Ok(found) if !found.has_error() => return Ok((found, None)),
            Ok(found) => found,
            Err(Failure::Overloaded) => return Err(Failure::Overloaded),
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
        Ok((found, redirect))
    }

    /// Follows the redirection of a lookup. Where a slot has moved for good, lookups share the pipelines of its new node.
    async fn follow_lookup(
        &self,
        deadline: Instant,
        keys: &LookupKeys<'_>,
        mut found: LookupReply,
        mut redirect: Redirect,
    ) -> Result<LookupReply, Failure> {
        let mut followed = 0;
        while followed < HASTY_REDIRECTIONS {
            let Redirect::Moved(address) = &redirect else {
                break;
            };
            let node = self.shared.node_at(address.clone());
            self.shared.note_move(keys.sessions, address, &node);
            followed += 1;
            match self.look_up_at(&node, deadline, keys).await? {
                (found, None) => return Ok(found),
                (next, Some(other)) => (found, redirect) = (next, other),
            }
        }
        let routed = Routed {
            key: keys.sessions,
            lane: Lane::Requests,
            deadline,
            request: Request::Read(&keys.commands(false)),
        };
        let answer = self
            .follow(&routed, redirect, found.into_values(), followed)
            .await?;
        LookupReply::of_two_nodes(answer)
    }

    /// Sends commands to the node that holds `key`, and follows redirections. All keys of the commands are in the slot
    /// of `key`.
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
                let followed = self.follow(&routed, redirect, answer.values, 0);
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

    /// Follows a redirection, and further ones, until a node answers. `values` are the replies of the last node; so many
    /// redirections were followed before.
    async fn follow(
        &self,
        routed: &Routed<'_>,
        mut redirect: Redirect,
        mut values: Vec<Value>,
        followed: u32,
    ) -> Result<Answer, Failure> {
        let mut repeated = false;
        for redirections in followed + 1.. {
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

    /// Sends the commands that were redirected by `ASK` to the `other` node, and merges its replies into `values`.
    /// While a slot migrates, each of its keys is at one of the two nodes.
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
