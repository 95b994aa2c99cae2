use std::{fmt, sync::Arc};

use http::{HeaderMap, Request, Response};

use super::{
    Rejection, RequestHead, TokenSource,
    cache::{CachePolicy, is_shared},
    hook::{OnRejection, PlainResponse},
    mode::Mode,
    respond::{Responder, ResponseFixups},
    source::TokenSources,
};
use crate::manager::{EventContext, RenewalPolicy};

/// The configuration of a layer, without the manager or verifier that checks its tokens.
#[derive(Clone)]
pub(super) struct Settings<R> {
    pub(super) mode: Mode,
    pub(super) sources: TokenSources,
    /// Whether no cache of the store may answer a check.
    pub(super) always_ask: bool,
    pub(super) renewal: RenewalPolicy,
    pub(super) event_context: Option<Arc<MakeContext>>,
    pub(super) responder: Responder<R>,
}

/// Makes the context of the events of a request.
type MakeContext = dyn Fn(&RequestHead<'_>) -> EventContext + Send + Sync;

impl Settings<PlainResponse> {
    /// The defaults; `layer` is the name of the layer in error messages.
    pub(super) fn new(layer: &'static str) -> Self {
        let sources = TokenSources::default();
        let mode = Mode::Required;
        let cache = CachePolicy::new(mode, sources.list());
        Self {
            mode,
            sources,
            always_ask: false,
            renewal: RenewalPolicy::default(),
            event_context: None,
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
            always_ask: self.always_ask,
            renewal: self.renewal,
            event_context: self.event_context,
            responder: self.responder.map_hook(map),
        }
    }

    /// The context of the events of a request, if the layer makes one.
    pub(super) fn event_context<B>(&self, request: &mut Request<B>) -> Option<EventContext> {
        let make = self.event_context.as_ref()?;
        self.sources.mark_as_sensitive(request.headers_mut());
        Some(make(&RequestHead::of(request)))
    }

    /// Reads the token of a request, and what the post-processing of its response depends on.
    #[inline]
    pub(super) fn read_token<B, T>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        read: impl FnOnce(Result<&str, Rejection>) -> T,
    ) -> (T, PostProcess<R>) {
        let (token, place) = self.sources.read(request, read);
        let post = PostProcess {
            settings: Arc::clone(self),
            fixups: self.responder.fixups(request, place.offered),
            source: place.source,
            token_is_dead: false,
        };
        (token, post)
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
            .field("always_ask", &self.always_ask)
            .field("refresh_below", &self.renewal.below)
            .field("note_last_seen", &self.renewal.seen)
            .finish_non_exhaustive()
    }
}

/// The post-processing of the response to one request.
pub(super) struct PostProcess<R> {
    pub(super) settings: Arc<Settings<R>>,
    fixups: ResponseFixups,
    /// The index of the source that has the token of the request.
    source: Option<usize>,
    /// Whether the token of the request is invalid for good.
    token_is_dead: bool,
}

impl<R> PostProcess<R> {
    /// The source that has the token of the request.
    pub(super) fn source(&self) -> Option<&TokenSource> {
        self.settings.sources.list().get(self.source?)
    }

    /// Notes that the token of the request is invalid for good, so that a cookie with it is cleared.
    pub(super) fn note_dead_token(&mut self) {
        self.token_is_dead = true;
    }

    /// Post-processes a response of the inner service. `user_type` is the name of the layer's `D`.
    pub(super) fn finish<B>(
        &self,
        response: Response<B>,
        user_type: &'static str,
    ) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        let responder = &self.settings.responder;
        let mut response = responder.finish(response, self.fixups, user_type);
        self.clear_dead_cookie(response.headers_mut());
        response
    }

    /// The response to a request that the layer refuses.
    pub(super) fn refuse<B>(&self, rejection: Rejection) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        let responder = &self.settings.responder;
        let mut response = responder.refuse(rejection, self.fixups);
        self.clear_dead_cookie(response.headers_mut());
        response
    }

    /// Clears the cookie that has a dead token, except in gRPC responses, whose clients have no cookies.
    ///
    /// A shared cache would send the `Set-Cookie` of a response that it may store to other clients as well, whose
    /// cookies may be alive.
    fn clear_dead_cookie(&self, headers: &mut HeaderMap) {
        if self.token_is_dead
            && !self.fixups.grpc
            && let Some(source) = self.source()
            && source.is_cookie()
            && !is_shared(headers)
        {
            source.clear_cookie(headers);
        }
    }
}
