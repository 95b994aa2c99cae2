use http::{
    HeaderValue, Method, Request, Response,
    header::{CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{
    Rejection,
    cache::{CachePolicy, remove_caching},
    grpc,
    hook::{OnRejection, PlainResponse, remove_representation},
    reject::{MissingLayer, PendingPostProcess},
    source::OfferedBearer,
};
use crate::{Error, ErrorKind};

/// Post-processes the responses of a layer and answers the requests that it refuses.
#[derive(Clone, Debug)]
pub(super) struct Responder<R> {
    /// The name of the layer in error messages.
    layer: &'static str,
    /// `None` for the default realm.
    realm: Option<Box<Realm>>,
    /// Whether refused gRPC calls get gRPC responses.
    pub(super) grpc: bool,
    pub(super) cache: CachePolicy,
    /// The `Retry-After` of a fault; `None` for the default.
    pub(super) retry_after: Option<HeaderValue>,
    hook: R,
}

#[derive(Clone, Debug)]
struct Realm {
    name: Box<str>,
    /// The challenges for a missing token, an invalid token and several tokens.
    challenges: [HeaderValue; 3],
}

/// The properties of a request that its response depends on.
#[derive(Clone, Copy)]
pub(super) struct ResponseFixups {
    /// The `bearer` of a WebSocket client that offered its token as a protocol; the response must choose a protocol.
    offered: Option<OfferedBearer>,
    /// Whether the method is `CONNECT`, so that a success begins a tunnel (RFC 8441).
    connect: bool,
    /// Whether a refusal needs a gRPC response.
    pub(super) grpc: bool,
}

impl Responder<PlainResponse> {
    pub(super) fn new(layer: &'static str, cache: CachePolicy) -> Self {
        Self {
            layer,
            realm: None,
            grpc: false,
            cache,
            retry_after: None,
            hook: PlainResponse,
        }
    }
}

impl<R> Responder<R> {
    pub(super) fn map_hook<T>(self, map: impl FnOnce(R) -> T) -> Responder<T> {
        Responder {
            layer: self.layer,
            realm: self.realm,
            grpc: self.grpc,
            cache: self.cache,
            retry_after: self.retry_after,
            hook: map(self.hook),
        }
    }

    pub(super) fn set_realm(&mut self, realm: &str) -> Result<(), Error> {
        // RFC 9110 §5.6.4: the characters of a quoted string that need no escape.
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        if !realm.bytes().all(plain) {
            let message = "a realm may contain only printable ASCII characters, without quotes and backslashes";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let rejections = [
            Rejection::MissingToken,
            Rejection::InvalidToken,
            Rejection::InvalidRequest,
        ];
        let challenges = rejections
            .map(|rejection| challenge(&rejection, realm).expect("rejections with a challenge"));
        self.realm = Some(Box::new(Realm {
            name: realm.into(),
            challenges,
        }));
        Ok(())
    }

    /// Reads what the response depends on; `offered` is set if a WebSocket client offered a token.
    pub(super) fn fixups<B>(
        &self,
        request: &Request<B>,
        offered: Option<OfferedBearer>,
    ) -> ResponseFixups {
        ResponseFixups {
            offered,
            connect: request.method() == Method::CONNECT,
            grpc: self.grpc && grpc::is_call(request),
        }
    }

    /// Post-processes a response of the inner service. `user_type` is the name of the layer's `D`.
    pub(super) fn finish<B>(
        &self,
        response: Response<B>,
        fixups: ResponseFixups,
        user_type: &'static str,
    ) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        let rejection = self.pending_rejection(&response, user_type);
        let mut response = response.map(R::wrap);
        if let Some(rejection) = rejection {
            remove_caching(response.headers_mut());
            return self.finish_refusal(rejection, response, fixups);
        }
        if let Some(offered) = fixups.offered {
            offered.choose(&mut response, fixups.connect);
        }
        self.cache.apply(response.headers_mut());
        response
    }

    /// The response to a request that this layer refuses.
    pub(super) fn refuse<B>(
        &self,
        rejection: Rejection,
        fixups: ResponseFixups,
    ) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        let response = rejection.head().map(|()| R::empty());
        self.finish_refusal(rejection, response, fixups)
    }

    fn finish_refusal<B>(
        &self,
        rejection: Rejection,
        response: Response<R::Body>,
        fixups: ResponseFixups,
    ) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        let mut response = self.apply_hook(rejection, response, fixups.grpc);
        if let Some(offered) = fixups.offered {
            offered.choose(&mut response, fixups.connect);
        }
        self.cache.apply_to_refusal(response.headers_mut());
        response
    }

    /// The rejection of an extractor or handler that no inner layer has post-processed.
    fn pending_rejection<B>(
        &self,
        response: &Response<B>,
        user_type: &'static str,
    ) -> Option<Rejection> {
        response.extensions().get::<PendingPostProcess>()?;
        let rejection = response.extensions().get::<Rejection>()?;
        // A handler may keep the extensions of a rejection, but answer with another status.
        if response.status() != rejection.status() {
            return None;
        }
        Some(match rejection {
            Rejection::MissingLayer(missing) => {
                let present = missing.with_layer(self.layer, user_type);
                Rejection::MissingLayer(MissingLayer::logged(present))
            }
            other => other.clone(),
        })
    }

    /// Sets the realm of a refusal, and applies the hook or makes it a gRPC response.
    fn apply_hook<B>(
        &self,
        rejection: Rejection,
        mut response: Response<R::Body>,
        grpc: bool,
    ) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        if grpc {
            remove_representation(response.headers_mut());
            grpc::make_trailers_only(&rejection, &mut response);
            response = response.map(|_| R::empty());
        } else {
            if let Some(challenge) = self.challenge(&rejection) {
                let headers = response.headers_mut();
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            if let (Rejection::Fault(_), Some(retry_after)) = (&rejection, &self.retry_after) {
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, retry_after.clone());
            }
            response = self.hook.on_rejection(&rejection, response);
            // The hook may have changed the body; the server sets the length anew.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        let extensions = response.extensions_mut();
        extensions.remove::<PendingPostProcess>();
        // Usually that of an extractor or handler is there still: an assignment allocates nothing.
        match extensions.get_mut::<Rejection>() {
            Some(present) => *present = rejection,
            None => drop(extensions.insert(rejection)),
        }
        response
    }

    /// The challenge with the configured realm; `None` for the default one.
    fn challenge(&self, rejection: &Rejection) -> Option<HeaderValue> {
        let realm = self.realm.as_ref()?;
        let [missing, invalid, several] = &realm.challenges;
        match rejection {
            Rejection::MissingToken => Some(missing.clone()),
            Rejection::InvalidToken => Some(invalid.clone()),
            Rejection::InvalidRequest => Some(several.clone()),
            other => challenge(other, &realm.name),
        }
    }
}

/// The challenge of a rejection, if it has one, with this realm in place of the default one.
fn challenge(rejection: &Rejection, realm: &str) -> Option<HeaderValue> {
    let challenge = rejection.challenge()?;
    let challenge = challenge.to_str().ok()?.replacen("api", realm, 1);
    HeaderValue::try_from(challenge).ok()
}
