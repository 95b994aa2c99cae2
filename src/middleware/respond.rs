use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE},
};

use super::{Rejection, source::BEARER};
use crate::{Error, ErrorKind};

/// What the responses to refused requests look like; for [`SessionLayer::on_rejection`](super::SessionLayer::on_rejection).
///
/// Any `Fn(&Rejection, Response<B>) -> Response<B>` is one.
pub trait OnRejection<B> {
    /// Makes the response to a refused request from one that is complete: status and challenge are right.
    ///
    /// Its body is empty if the layer refused the request, and the text of the rejection if an extractor did.
    fn on_rejection(&self, rejection: &Rejection, response: Response<B>) -> Response<B>;
}

impl<F, B> OnRejection<B> for F
where
    F: Fn(&Rejection, Response<B>) -> Response<B>,
{
    fn on_rejection(&self, rejection: &Rejection, response: Response<B>) -> Response<B> {
        self(rejection, response)
    }
}

/// Leaves responses to refused requests as they are: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainResponse;

impl<B> OnRejection<B> for PlainResponse {
    fn on_rejection(&self, _: &Rejection, response: Response<B>) -> Response<B> {
        response
    }
}

/// What the response of an extractor has among its extensions until a layer has given it its realm and its looks.
#[derive(Clone, Copy)]
pub(super) struct Unfinished;

/// Makes responses.
#[derive(Clone, Debug)]
pub(super) struct Responder<R> {
    /// For a missing and for an invalid token, and for more than one; `None`: with the default realm.
    challenges: Option<[HeaderValue; 3]>,
    hook: R,
}

/// What the place of a token in the request means for the response.
#[derive(Clone, Copy, Default)]
pub(super) struct Manners {
    /// A WebSocket client offered it among its protocols, and must be answered with one of these.
    pub(super) offered: bool,
    /// The method is `CONNECT`, so that a success is the beginning of a tunnel, as by RFC 8441.
    pub(super) connect: bool,
    /// It stood in the URL, which is all that a shared cache may look at.
    pub(super) in_url: bool,
}

impl Responder<PlainResponse> {
    pub(super) fn new() -> Self {
        Self {
            challenges: None,
            hook: PlainResponse,
        }
    }
}

impl<R> Responder<R> {
    pub(super) fn with_hook<T>(self, hook: T) -> Responder<T> {
        Responder {
            challenges: self.challenges,
            hook,
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

    /// The response to a request that this layer refuses.
    pub(super) fn refuse<B: Default>(
        &self,
        rejection: Rejection,
        request: &HeaderMap,
    ) -> Response<B>
    where
        R: OnRejection<B>,
    {
        if is_grpc(request) {
            return rejection.grpc_response();
        }
        let mut response = rejection.response();
        // What the challenge says need not be said again: the refusals that anybody can cause cost least.
        if !rejection.is_anonymous() {
            response.extensions_mut().insert(rejection.clone());
        }
        self.finish(&rejection, response)
    }

    /// The response of the inner service: one of an extractor is finished here.
    pub(super) fn pass<B>(&self, mut response: Response<B>, manners: Manners) -> Response<B>
    where
        R: OnRejection<B>,
    {
        if manners.offered {
            choose_bearer(&mut response, manners.connect);
        }
        if manners.in_url {
            // RFC 6750 §2.3.
            let private = HeaderValue::from_static("private");
            response
                .headers_mut()
                .entry(CACHE_CONTROL)
                .or_insert(private);
        }
        let extensions = response.extensions();
        match extensions.get::<Rejection>() {
            // A service may answer something else than the extractor whose rejection it noted.
            Some(rejection)
                if extensions.get::<Unfinished>().is_some()
                    && response.status() == rejection.status() =>
            {
                let rejection = rejection.clone();
                response.extensions_mut().remove::<Unfinished>();
                self.finish(&rejection, response)
            }
            _ => response,
        }
    }

    fn finish<B>(&self, rejection: &Rejection, mut response: Response<B>) -> Response<B>
    where
        R: OnRejection<B>,
    {
        if let Some([missing, invalid, several]) = &self.challenges {
            let challenge = match rejection {
                Rejection::MissingToken => Some(missing),
                Rejection::InvalidToken => Some(invalid),
                Rejection::InvalidRequest => Some(several),
                _ => None,
            };
            if let Some(challenge) = challenge {
                let headers = response.headers_mut();
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
            }
        }
        self.hook.on_rejection(rejection, response)
    }
}

impl Rejection {
    /// The response, with an empty body.
    pub(super) fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Self::Fault(_) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// The *Trailers-Only* response of a
    /// [gRPC server](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses).
    fn grpc_response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(self.grpc_status()));
        // These texts have no character that gRPC wants escaped.
        if let Ok(message) = HeaderValue::try_from(self.to_string()) {
            headers.insert("grpc-message", message);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Whether it is a gRPC call. (gRPC-Web is for a layer further out to translate.)
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return false;
    };
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
}

/// Lets a browser have one of the protocols that it offered.
fn choose_bearer<B>(response: &mut Response<B>, connect: bool) {
    let status = response.status();
    let accepted = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
    let headers = response.headers_mut();
    if accepted && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
}
