use std::sync::LazyLock;

use redis::{Cmd, RedisResult, ToRedisArgs, Value};

/// A Lua script: what must be atomic and is more than one command.
pub(crate) struct Script {
    source: &'static str,
    sha: String,
}

macro_rules! script {
    ($($file:literal),*) => {
        LazyLock::new(|| Script::new(concat!($(include_str!($file)),*)))
    };
}

/// A write, which has a deadline.
macro_rules! write {
    ($($file:literal),*) => {
        script!("scripts/deadline.lua", $($file),*)
    };
}

pub(crate) static CREATE: LazyLock<Script> = write!("scripts/records.lua", "scripts/create.lua");
pub(crate) static UPDATE: LazyLock<Script> = write!(
    "scripts/records.lua",
    "scripts/keep.lua",
    "scripts/update.lua"
);
pub(crate) static DELETE: LazyLock<Script> = write!("scripts/records.lua", "scripts/delete.lua");
pub(crate) static DELETE_ALL: LazyLock<Script> = write!(
    "scripts/records.lua",
    "scripts/keep.lua",
    "scripts/delete_all.lua"
);
pub(crate) static PRUNE: LazyLock<Script> = write!("scripts/records.lua", "scripts/prune.lua");
pub(crate) static PUT_USER: LazyLock<Script> = write!("scripts/put_user.lua");
pub(crate) static FENCE: LazyLock<Script> = script!("scripts/fence.lua");

impl Script {
    fn new(source: &'static str) -> Self {
        let sha = redis::Script::new(source).get_hash().to_owned();
        Self { source, sha }
    }

    /// One call of this script on `key`.
    pub(crate) fn call(&'static self, key: String) -> ScriptCall {
        ScriptCall {
            script: self,
            key,
            args: Vec::new(),
        }
    }
}

/// The form in which a script is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// By its hash: the server is expected to have it.
    Sha,
    /// By its text, which loads it into the server.
    Source,
}

pub(crate) struct ScriptCall {
    script: &'static Script,
    key: String,
    args: Vec<Vec<u8>>,
}

impl ScriptCall {
    pub(crate) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        arg.write_redis_args(&mut self.args);
        self
    }

    /// The key it works on.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The call, with a deadline by the server's clock in microseconds.
    pub(crate) fn command(&self, by: By, deadline: u64) -> Cmd {
        let mut call = self.begin(by);
        call.arg(deadline);
        for arg in &self.args {
            call.arg(arg);
        }
        call
    }

    /// The call of a script that takes no deadline.
    pub(crate) fn without_deadline(&self) -> Cmd {
        let mut call = self.begin(By::Source);
        for arg in &self.args {
            call.arg(arg);
        }
        call
    }

    fn begin(&self, by: By) -> Cmd {
        let mut call = Cmd::new();
        match by {
            By::Sha => call.arg("EVALSHA").arg(&self.script.sha),
            By::Source => call.arg("EVAL").arg(self.script.source),
        };
        call.arg(1).arg(&self.key);
        call
    }
}

/// Reads the reply of a write: the server's time in microseconds, and the result unless the call came too late.
pub(crate) fn read(reply: Value) -> RedisResult<(u64, Option<Value>)> {
    let parts: Vec<Value> = redis::from_redis_value(reply)?;
    let mut parts = parts.into_iter();
    let time = parts.next().unwrap_or(Value::Nil);
    Ok((redis::from_redis_value(time)?, parts.next()))
}
