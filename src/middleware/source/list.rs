use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, Request};

use super::{Kind, OfferedBearer, TokenSource, websocket};
use crate::middleware::Rejection;

/// The token sources of a layer.
#[derive(Clone, Debug)]
pub(in crate::middleware) struct TokenSources {
    list: Arc<[TokenSource]>,
    /// Whether the first source with a token decides, whatever the others have.
    first_decides: bool,
    /// Whether one of them reads the WebSocket protocols.
    reads_protocols: bool,
}

/// Where a request has its token.
#[derive(Clone, Copy)]
pub(in crate::middleware) struct TokenPlace {
    /// The index of the source that has the token.
    pub(in crate::middleware) source: Option<usize>,
    /// The `bearer` of a WebSocket client that offered a token, as the client spelled it.
    pub(in crate::middleware) offered: Option<OfferedBearer>,
}

impl Default for TokenSources {
    fn default() -> Self {
        Self {
            list: Arc::new([TokenSource::authorization()]),
            first_decides: false,
            reads_protocols: false,
        }
    }
}

impl TokenSources {
    pub(in crate::middleware) fn list(&self) -> &[TokenSource] {
        &self.list
    }

    pub(in crate::middleware) fn set_list(
        &mut self,
        sources: impl IntoIterator<Item = TokenSource>,
    ) {
        self.list = sources.into_iter().collect();
        let is_protocol = |source: &TokenSource| matches!(source.0, Kind::WebSocketProtocol);
        self.reads_protocols = self.list.iter().any(is_protocol);
    }

    pub(in crate::middleware) fn let_first_decide(&mut self) {
        self.first_decides = true;
    }

    /// Marks the header fields that may carry the token, so that they are not logged.
    #[inline]
    pub(in crate::middleware) fn mark_as_sensitive(&self, headers: &mut HeaderMap) {
        for source in &*self.list {
            source.mark_as_sensitive(headers);
        }
    }

    /// Reads the token of a request, and hides it from the inner service as far as the sources do.
    pub(in crate::middleware) fn read<B, T>(
        &self,
        request: &mut Request<B>,
        read: impl FnOnce(Result<&str, Rejection>) -> T,
    ) -> (T, TokenPlace) {
        self.mark_as_sensitive(request.headers_mut());
        let (found, source) = self.find(request);
        let token = read(found.as_deref().map_err(Clone::clone));
        let offered = match self.reads_protocols {
            true => websocket::hide(request),
            false => None,
        };
        (token, TokenPlace { source, offered })
    }

    /// The only token of a request; more than one is an error.
    ///
    /// RFC 6750 §2: "Clients MUST NOT use more than one method to transmit the token in each request". By §3.1 such a
    /// request is invalid, even if it is the same token.
    ///
    /// Also returns the index of the source that has it.
    fn find<'a, B>(
        &self,
        request: &'a Request<B>,
    ) -> (Result<Cow<'a, str>, Rejection>, Option<usize>) {
        let mut token = (Err(Rejection::MissingToken), None);
        for (index, source) in self.list.iter().enumerate() {
            let found = match source.find(request) {
                Ok(Some(found)) => (Ok(found), Some(index)),
                Ok(None) | Err(Rejection::MissingToken) => continue,
                // A token that cannot be read counts as a token.
                Err(Rejection::InvalidToken) => {
                    let index = Some(index).filter(|_| !source.is_ambiguous(request.headers()));
                    (Err(Rejection::InvalidToken), index)
                }
                Err(rejection) => return (Err(rejection), None),
            };
            if self.first_decides {
                return found;
            }
            if !matches!(token.0, Err(Rejection::MissingToken)) {
                return (Err(Rejection::InvalidRequest), None);
            }
            token = found;
        }
        token
    }
}
