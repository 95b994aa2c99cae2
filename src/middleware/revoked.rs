use std::{
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

/// A future that resolves when a session has ended; from [`Session::revoked`](super::Session::revoked).
#[must_use = "futures do nothing unless polled"]
pub struct Revoked(Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Revoked {
    pub(super) fn new(ended: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(ended)))
    }
}

impl Future for Revoked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Exclusive access takes no lock: the mutex makes the future `Sync`, as boxed bodies have to be.
        let future = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        future.as_mut().poll(cx)
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoked").finish_non_exhaustive()
    }
}
