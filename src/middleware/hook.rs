use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{
        ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
        CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, TRANSFER_ENCODING,
    },
};
use http_body_util::{Either, Full};

use super::{Rejection, reject::TEXT};

/// Changes the responses to refused requests; for [`SessionLayer::on_rejection`](super::SessionLayer::on_rejection). `B` is
/// the body of the inner service's responses.
///
/// Any `Fn(&Rejection, Response<B>) -> Response<B>` is one, for all bodies that can be empty (`Default`): it gets an
/// empty body and no header field about a body, whoever refused the request; a body that it makes and does not label is
/// `text/plain; charset=utf-8`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make responses from those with the body `{B}`",
    note = "a body without `Default`, such as hyper's `Incoming`, needs `.either_body()` on the layer"
)]
pub trait OnRejection<B> {
    /// The body of the layer's responses: `B` itself, unless the hook says otherwise.
    type Body;

    /// The body of a response of the inner service.
    fn wrap(body: B) -> Self::Body;

    /// The body of a response that has none.
    fn empty() -> Self::Body;

    /// Makes the response to a refused request from one with the right status, challenge and `Retry-After`.
    ///
    /// The body is empty if the layer refused the request, and the text of the rejection if an extractor or handler did.
    /// The layer drops a `Content-Length`, which the server sets anew; if you replace the body, drop the other fields about
    /// it.
    fn on_rejection(
        &self,
        rejection: &Rejection,
        response: Response<Self::Body>,
    ) -> Response<Self::Body>;
}

impl<F, B> OnRejection<B> for F
where
    F: Fn(&Rejection, Response<B>) -> Response<B>,
    B: Default,
{
    type Body = B;

    fn wrap(body: B) -> B {
        body
    }

    fn empty() -> B {
        B::default()
    }

    fn on_rejection(&self, rejection: &Rejection, mut response: Response<B>) -> Response<B> {
        remove_representation(response.headers_mut());
        let mut response = self(rejection, response.map(|_| B::default()));
        if !response.headers().contains_key(CONTENT_TYPE) {
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
        }
        response
    }
}

/// Leaves responses to refused requests as they are: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainResponse;

impl<B: Default> OnRejection<B> for PlainResponse {
    type Body = B;

    fn wrap(body: B) -> B {
        body
    }

    fn empty() -> B {
        B::default()
    }

    fn on_rejection(&self, _: &Rejection, response: Response<B>) -> Response<B> {
        response
    }
}

/// Gives refusals a body of their own beside that of the inner service, whatever that is; of
/// [`SessionLayer::either_body`](super::SessionLayer::either_body).
#[derive(Clone, Copy, Debug, Default)]
pub struct EitherBody<R> {
    hook: R,
}

impl<R> EitherBody<R> {
    pub(super) fn new(hook: R) -> Self {
        Self { hook }
    }
}

impl<R, B> OnRejection<B> for EitherBody<R>
where
    R: OnRejection<Full<Bytes>, Body = Full<Bytes>>,
{
    type Body = Either<B, Full<Bytes>>;

    fn wrap(body: B) -> Self::Body {
        Either::Left(body)
    }

    fn empty() -> Self::Body {
        Either::Right(Full::default())
    }

    fn on_rejection(
        &self,
        rejection: &Rejection,
        mut response: Response<Self::Body>,
    ) -> Response<Self::Body> {
        if let Either::Left(_) = response.body() {
            // The body of an extractor cannot be given to the hook, but it is known.
            remove_representation(response.headers_mut());
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
        }
        let response = response.map(|body| match body {
            Either::Left(_) => Full::from(rejection.to_string()),
            Either::Right(body) => body,
        });
        self.hook
            .on_rejection(rejection, response)
            .map(Either::Right)
    }
}

/// Removes the fields that describe a body ([RFC 9110 §8](https://www.rfc-editor.org/rfc/rfc9110#section-8)) or frame it,
/// because there is going to be another one.
pub(super) fn remove_representation(headers: &mut HeaderMap<HeaderValue>) {
    const FIELDS: [HeaderName; 12] = [
        ACCEPT_RANGES,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_LOCATION,
        CONTENT_RANGE,
        CONTENT_TYPE,
        ETAG,
        LAST_MODIFIED,
        TRANSFER_ENCODING,
        // RFC 9530.
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    for name in FIELDS {
        headers.remove(name);
    }
}
