use http::{
    HeaderValue, Method, Request, Response,
    header::{CACHE_CONTROL, CONTENT_LENGTH, EXPIRES, WWW_AUTHENTICATE},
};

use super::{
    Rejection,
    cache::CachePolicy,
    grpc,
    hook::{OnRejection, PlainResponse, remove_representation},
    reject::{MissingLayer, PendingPostProcess},
    source::OfferedBearer,
};
use crate::{Error, ErrorKind};

/// Finishes responses: all of them pass through [`finish`](Self::finish).
#[derive(Clone, Debug)]
pub(super) struct Responder<R> {
    /// The name of the layer in error messages.
    layer: &'static str,
    /// For a missing and for an invalid token, and for more than one; `None`: with the default realm.
    challenges: Option<[HeaderValue; 3]>,
    /// Whether gRPC calls get gRPC answers.
    pub(super) grpc: bool,
    pub(super) cache: CachePolicy,
    hook: R,
}

/// What a request asks of its response.
#[derive(Clone, Copy)]
pub(super) struct ResponseFixups {
    /// A WebSocket client offered its token among its protocols, and must be answered with one of these.
    offered: Option<OfferedBearer>,
    /// The method is `CONNECT`, so that a success is the beginning of a tunnel, as by RFC 8441.
    connect: bool,
    /// It is a gRPC call to a layer that answers them as such.
    grpc: bool,
}

impl Responder<PlainResponse> {
    pub(super) fn new(layer: &'static str, cache: CachePolicy) -> Self {
        Self {
            layer,
            challenges: None,
            grpc: false,
            cache,
            hook: PlainResponse,
        }
    }
}

impl<R> Responder<R> {
    pub(super) fn map_hook<T>(self, map: impl FnOnce(R) -> T) -> Responder<T> {
        Responder {
            layer: self.layer,
            challenges: self.challenges,
            grpc: self.grpc,
            cache: self.cache,
            hook: map(self.hook),
        }
    }

    pub(super) fn set_realm(&mut self, realm: &str) -> Result<(), Error> {
        // RFC 9110 §5.6.4: what may stand in a quoted string without an escape.
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        if !realm.bytes().all(plain) {
            let message =
                "a realm has printable ASCII characters only, and neither quotes nor backslashes";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let rejections = [
            Rejection::MissingToken,
            Rejection::InvalidToken,
            Rejection::InvalidRequest,
        ];
        self.challenges = Some(rejections.map(|rejection| {
            let challenge = rejection.challenge();
            let challenge = challenge.as_ref().and_then(|value| value.to_str().ok());
            let challenge = challenge.unwrap_or_default().replacen("api", realm, 1);
            HeaderValue::try_from(challenge).expect("a printable realm")
        }));
        Ok(())
    }

    /// What a request asks of its response; `offered` if a WebSocket client offered a token.
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

    /// The response to a request that the inner service has answered. `user_type` is the name of the layer's `D`.
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
        mut response: Response<R::Body>,
        fixups: ResponseFixups,
    ) -> Response<R::Body>
    where
        R: OnRejection<B>,
    {
        // What a middleware further in says of all its responses is not meant for a refusal.
        for name in [CACHE_CONTROL, EXPIRES] {
            response.headers_mut().remove(name);
        }
        let mut response = self.apply_hook(rejection, response, fixups.grpc);
        if let Some(offered) = fixups.offered {
            offered.choose(&mut response, fixups.connect);
        }
        self.cache.apply_to_refusal(response.headers_mut());
        response
    }

    /// The rejection of an extractor or handler that no layer further in has dealt with.
    fn pending_rejection<B>(
        &self,
        response: &Response<B>,
        user_type: &'static str,
    ) -> Option<Rejection> {
        response.extensions().get::<PendingPostProcess>()?;
        let rejection = response.extensions().get::<Rejection>()?;
        // A service may answer something else than the extractor whose rejection it noted.
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

    /// Gives a refusal its realm and its looks.
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
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
            }
            response = self.hook.on_rejection(&rejection, response);
            // The server knows the length of the body that there is now.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        let extensions = response.extensions_mut();
        extensions.remove::<PendingPostProcess>();
        extensions.insert(rejection);
        response
    }

    /// The challenge with a realm of the application's own.
    fn challenge(&self, rejection: &Rejection) -> Option<&HeaderValue> {
        let [missing, invalid, several] = self.challenges.as_ref()?;
        match rejection {
            Rejection::MissingToken => Some(missing),
            Rejection::InvalidToken => Some(invalid),
            Rejection::InvalidRequest => Some(several),
            _ => None,
        }
    }
}
