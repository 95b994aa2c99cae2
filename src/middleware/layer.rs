use std::fmt;

use tower::Layer;

use super::SessionService;
use crate::TokenManager;

/// Lets only requests with a live token through, and tells the inner service whose they are.
///
/// See the [module](crate::middleware) for how requests are judged.
#[must_use]
pub struct SessionLayer<D = serde_json::Value> {
    manager: TokenManager<D>,
    mode: Mode,
}

/// What happens to a request without a live token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Required,
    Optional,
}

impl<D> SessionLayer<D> {
    /// A layer that requires a live token.
    pub fn new(manager: TokenManager<D>) -> Self {
        Self {
            manager,
            mode: Mode::Required,
        }
    }

    /// Lets requests without a live token through, as anonymous ones: login routes and public pages are under
    /// such a layer. Routes that need a user say so with the extractor `Session<D>` or `User<D>`.
    ///
    /// A request whose token cannot be judged, because the store or the loader fails, is still answered
    /// with 503.
    pub fn optional(mut self) -> Self {
        self.mode = Mode::Optional;
        self
    }
}

impl<S, D> Layer<S> for SessionLayer<D> {
    type Service = SessionService<S, D>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.manager.clone(), self.mode)
    }
}

impl<D> Clone for SessionLayer<D> {
    fn clone(&self) -> Self {
        Self {
            manager: self.manager.clone(),
            mode: self.mode,
        }
    }
}

impl<D> fmt::Debug for SessionLayer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("manager", &self.manager)
            .field("mode", &self.mode)
            .finish()
    }
}
