use std::{fmt, sync::Arc};

use http::Request;

use super::{
    Rejection, TokenSource,
    cache::CachePolicy,
    hook::PlainResponse,
    mode::Mode,
    respond::{Responder, ResponseFixups},
    source::TokenSources,
};
use crate::manager::RenewalPolicy;

/// The configuration of a layer, without the manager or verifier that checks its tokens.
#[derive(Clone, Debug)]
pub(super) struct Settings<R> {
    pub(super) mode: Mode,
    pub(super) sources: TokenSources,
    pub(super) renewal: RenewalPolicy,
    pub(super) responder: Responder<R>,
}

impl Settings<PlainResponse> {
    /// The defaults; `layer` is the name of the layer in error messages.
    pub(super) fn new(layer: &'static str) -> Self {
        let sources = TokenSources::default();
        let mode = Mode::Required;
        let cache = CachePolicy::new(mode, sources.list());
        Self {
            mode,
            sources,
            renewal: RenewalPolicy::default(),
            responder: Responder::new(layer, cache),
        }
    }
}

impl<R> Settings<R> {
    pub(super) fn set_optional(&mut self) {
        self.mode = Mode::Optional;
        self.update_cache_policy();
    }

    pub(super) fn set_sources(&mut self, sources: impl IntoIterator<Item = TokenSource>) {
        self.sources.set_list(sources);
        self.update_cache_policy();
    }

    fn update_cache_policy(&mut self) {
        self.responder.cache = CachePolicy::new(self.mode, self.sources.list());
    }

    pub(super) fn map_hook<T>(self, map: impl FnOnce(R) -> T) -> Settings<T> {
        Settings {
            mode: self.mode,
            sources: self.sources,
            renewal: self.renewal,
            responder: self.responder.map_hook(map),
        }
    }

    /// Reads the token of a request, and the properties that its response depends on.
    pub(super) fn read_token<B, T>(
        &self,
        request: &mut Request<B>,
        read: impl FnOnce(Result<&str, Rejection>) -> T,
    ) -> (T, ResponseFixups) {
        let (token, offered) = self.sources.read(request, read);
        (token, self.responder.fixups(request, offered))
    }

    /// `Debug` of a layer or its service.
    pub(super) fn fmt_with(
        &self,
        name: &str,
        f: &mut fmt::Formatter<'_>,
        checker: &dyn fmt::Debug,
    ) -> fmt::Result {
        f.debug_struct(name)
            .field("checker", checker)
            .field("mode", &self.mode)
            .field("token_sources", &self.sources.list())
            .field("refresh_below", &self.renewal.below)
            .finish_non_exhaustive()
    }
}

/// The post-processing of the response to one request.
pub(super) struct PostProcess<R> {
    pub(super) settings: Arc<Settings<R>>,
    pub(super) fixups: ResponseFixups,
}
