use super::{
    Rejection,
    body::{RefusalBody, ResponseBody},
    reject::TEXT,
};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{
        ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
        CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, TRANSFER_ENCODING,
    },
};

/// A hook that changes the responses to refused requests; for
/// [`SessionLayer::on_rejection`](super::SessionLayer::on_rejection).
///
/// `B` is the body of the inner service's responses. Any `Fn(&Rejection, Response<B>) -> Response<B>` is a hook, for
/// all bodies with `Default`. The closure always gets an empty body without header fields about it, and its response is
/// `text/plain; charset=utf-8` unless it sets a `Content-Type`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make responses from those with the body `{B}`",
    note = "a body without `Default`, such as hyper's `Incoming`, needs `.either_body()` on the layer, and so does one that is not `From<String>`, such as `BoxBody`, under `ProblemJson`"
)]
pub trait OnRejection<B> {
    /// The body of the layer's responses, usually `B` itself.
    type Body;

    /// Converts the body of a response of the inner service.
    fn wrap(body: B) -> Self::Body;

    /// An empty body.
    fn empty() -> Self::Body;

    /// Changes the response to a refused request, which already has its status, challenge and `Retry-After`.
    ///
    /// The body is empty if the layer refused the request, and the text of the rejection if an extractor or handler
    /// did. The layer removes `Content-Length`, which the server sets anew. If you replace the body, remove the other
    /// header fields about it.
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

/// The default hook: leaves the responses to refused requests unchanged.
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

/// A hook for inner services with any response body, which gives refusals a body type of their own; from
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
    R: OnRejection<RefusalBody, Body = RefusalBody>,
{
    type Body = ResponseBody<B>;

    fn wrap(body: B) -> Self::Body {
        ResponseBody::inner(body)
    }

    fn empty() -> Self::Body {
        ResponseBody::refusal(RefusalBody::default())
    }

    fn on_rejection(
        &self,
        rejection: &Rejection,
        mut response: Response<Self::Body>,
    ) -> Response<Self::Body> {
        if !response.body().is_refusal() {
            // The hook takes another body type than the extractor's body, whose text is known.
            remove_representation(response.headers_mut());
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
        }
        let response = response.map(|body| {
            let refusal = body.into_refusal();
            refusal.unwrap_or_else(|_| rejection.to_string().into())
        });
        self.hook
            .on_rejection(rejection, response)
            .map(ResponseBody::refusal)
    }
}

/// Removes the header fields that describe or frame a body
/// ([RFC 9110 §8](https://www.rfc-editor.org/rfc/rfc9110#section-8)) that is going to be replaced.
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
