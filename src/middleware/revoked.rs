use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

/// A future that resolves when a session has ended; from [`Session::revoked`](super::Session::revoked).
#[must_use = "futures do nothing unless polled"]
pub struct Revoked(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Revoked {
    pub(super) fn new(ended: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(ended))
    }
}

impl Future for Revoked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoked").finish_non_exhaustive()
    }
}
