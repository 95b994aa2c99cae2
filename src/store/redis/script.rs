use std::sync::LazyLock;

use redis::{Cmd, Pipeline, ToRedisArgs};

/// A Lua script: what must be atomic and is more than one command.
pub(super) struct Script {
    source: &'static str,
    sha: String,
}

macro_rules! script {
    ($($file:literal),*) => {
        LazyLock::new(|| Script::new(concat!($(include_str!($file)),*)))
    };
}

pub(super) static CREATE: LazyLock<Script> = script!("scripts/prelude.lua", "scripts/create.lua");
pub(super) static UPDATE: LazyLock<Script> = script!("scripts/prelude.lua", "scripts/update.lua");
pub(super) static DELETE_ALL: LazyLock<Script> =
    script!("scripts/prelude.lua", "scripts/delete_all.lua");
pub(super) static PUT_USER: LazyLock<Script> = script!("scripts/put_user.lua");
pub(super) static FENCE: LazyLock<Script> = script!("scripts/fence.lua");

impl Script {
    fn new(source: &'static str) -> Self {
        let sha = redis::Script::new(source).get_hash().to_owned();
        Self { source, sha }
    }

    /// One call of this script on `key`.
    pub(super) fn call(&'static self, key: String) -> ScriptCall {
        ScriptCall {
            script: self,
            key,
            args: Vec::new(),
        }
    }
}

pub(super) struct ScriptCall {
    script: &'static Script,
    key: String,
    args: Vec<Vec<u8>>,
}

impl ScriptCall {
    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        arg.write_redis_args(&mut self.args);
        self
    }

    /// The key it works on.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The call of a script that the server is expected to know.
    pub(super) fn by_sha(&self) -> Pipeline {
        self.pipeline("EVALSHA", &self.script.sha)
    }

    /// The call that makes the server know it.
    pub(super) fn by_source(&self) -> Pipeline {
        self.pipeline("EVAL", self.script.source)
    }

    fn pipeline(&self, command: &str, script: &str) -> Pipeline {
        let mut call = Cmd::new();
        call.arg(command).arg(script).arg(1).arg(&self.key);
        for arg in &self.args {
            call.arg(arg);
        }
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(call);
        pipeline
    }
}
