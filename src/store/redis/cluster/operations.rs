//! Sending commands to the nodes that hold their keys, wherever these are redirected to.

use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::{Instant, sleep_until};

use super::{
    Cluster,
    redirect::{Redirect, is_unfit},
    unavailable,
};
use crate::store::redis::{
    errors::server_code,
    link::{Answer, Failure, OnDrop},
    lookup::{Found, Sought},
    node::{Lane, Node},
};

/// After so many redirections nodes seem to disagree, as they do for a moment when a slot has moved.
const HASTY_REDIRECTIONS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(20);

/// Commands about keys in one slot, or about none.
struct Request<'a> {
    /// One of the keys.
    key: &'a str,
    lane: Lane,
    deadline: Instant,
    commands: &'a Pipeline,
    on_drop: OnDrop,
}

impl Cluster {
    /// Looks a session and its user up at the node that holds them.
    pub(in crate::store::redis) async fn look_up(
        &self,
        deadline: Instant,
        sought: &Sought<'_>,
    ) -> Result<Found, Failure> {
        let node = self.find(sought.sessions, deadline).await?;
        let found = match node.requests.look_up(deadline, sought).await {
            Ok(found) if !found.has_error() => return Ok(found),
            Ok(found) => found,
            Err(failure) => {
                self.shared.outdated.notify_one();
                return Err(failure);
            }
        };
        if found.replies().into_iter().any(is_unfit) {
            self.shared.outdated.notify_one();
        }
        let asked = node.address();
        let redirect = asked.and_then(|asked| Redirect::of(found.replies(), &asked));
        let Some(redirect) = redirect else {
            return Ok(found);
        };
        // Lookups that have to go elsewhere share no pipeline.
        let request = Request {
            key: sought.sessions,
            lane: Lane::Requests,
            deadline,
            commands: &sought.commands(),
            on_drop: OnDrop::Retry,
        };
        let answer = self.follow(&request, redirect, found.into_values());
        Found::of(answer.await?)
    }

    /// Sends commands to the node that holds `key`, and those that it does not execute to where it says; all of
    /// them are about keys in the slot of `key`, or about none.
    pub(in crate::store::redis) async fn send(
        &self,
        key: &str,
        lane: Lane,
        deadline: Instant,
        commands: &Pipeline,
        on_drop: OnDrop,
    ) -> Result<Answer, Failure> {
        let request = Request {
            key,
            lane,
            deadline,
            commands,
            on_drop,
        };
        let node = self.find(key, deadline).await?;
        let answer = self.send_to(&node, &request).await?;
        match Redirect::of_answer(&answer) {
            None => Ok(answer),
            Some(redirect) => self.follow(&request, redirect, answer.values).await,
        }
    }

    async fn send_to(&self, node: &Node, request: &Request<'_>) -> Result<Answer, Failure> {
        let link = node.lane(request.lane);
        let sent = link.send(request.deadline, request.commands, request.on_drop);
        let sent = sent.await;
        if !sent
            .as_ref()
            .is_ok_and(|answer| !answer.values.iter().any(is_unfit))
        {
            self.shared.outdated.notify_one();
        }
        sent
    }

    /// Follows a redirection, and those that come of it, to an answer; `values` are what the commands returned where
    /// they were sent first.
    async fn follow(
        &self,
        request: &Request<'_>,
        mut redirect: Redirect,
        mut values: Vec<Value>,
    ) -> Result<Answer, Failure> {
        for redirections in 1.. {
            if redirections > HASTY_REDIRECTIONS {
                sleep_until(request.deadline.min(Instant::now() + PAUSE)).await;
            }
            if Instant::now() >= request.deadline {
                break;
            }
            let answer = match redirect {
                Redirect::Moved(address) => {
                    let node = self.shared.node_at(address.clone());
                    self.shared.note_move(request.key, &address, &node);
                    self.send_to(&node, request).await?
                }
                Redirect::Ask(address) => {
                    let node = self.shared.node_at(address);
                    self.ask(&node, request, values).await?
                }
            };
            match Redirect::of_answer(&answer) {
                None => return Ok(answer),
                Some(next) => (redirect, values) = (next, answer.values),
            }
        }
        let message = "the nodes of the cluster do not agree on which of them holds a slot";
        Err(Failure::Down(unavailable(message)))
    }

    /// While a slot is on the move each of its keys is here or there. Sends what is there to there, and puts the
    /// answers in place.
    async fn ask(
        &self,
        other: &Node,
        request: &Request<'_>,
        mut values: Vec<Value>,
    ) -> Result<Answer, Failure> {
        let mut asking = Pipeline::new();
        let mut places = Vec::new();
        for (place, command) in request.commands.cmd_iter().enumerate() {
            if matches!(&values[place], Value::ServerError(error) if server_code(error) == "ASK") {
                asking.cmd("ASKING").add_command(command.clone());
                places.push(place);
            }
        }
        let asking = Request {
            commands: &asking,
            ..*request
        };
        let there = self.send_to(other, &asking).await?;
        for (place, value) in places
            .into_iter()
            .zip(there.values.into_iter().skip(1).step_by(2))
        {
            values[place] = value;
        }
        Ok(Answer {
            values,
            live: there.live,
        })
    }
}
