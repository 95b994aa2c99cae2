use http::{
    HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::json;

use super::reject::TEXT;
use crate::{IssuedToken, Token};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A response with the text of the token, which no cache stores.
impl<B: From<String>> From<Token> for Response<B> {
    fn from(token: Token) -> Self {
        response(token.expose_secret().to_owned(), TEXT)
    }
}

/// The response to a login, which no cache stores: a JSON object with `access_token`, `token_type` (`Bearer`) and
/// `expires_in`, in seconds ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)).
impl<B: From<String>> From<IssuedToken> for Response<B> {
    fn from(issued: IssuedToken) -> Self {
        let left = issued.expires_at.duration_since(issued.issued_at);
        let body = json!({
            "access_token": issued.token,
            "token_type": "Bearer",
            "expires_in": left.unwrap_or_default().as_secs(),
        });
        let media_type = HeaderValue::from_static("application/json");
        response(body.to_string(), media_type)
    }
}

fn response<B: From<String>>(body: String, media_type: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

#[cfg(feature = "axum")]
mod axum {
    use axum_core::response::{IntoResponse, Response};

    use crate::{IssuedToken, Token};

    impl IntoResponse for Token {
        /// A response with the text of the token, which no cache stores.
        fn into_response(self) -> Response {
            self.into()
        }
    }

    impl IntoResponse for IssuedToken {
        /// The response to a login: a JSON object by RFC 6749 §5.1, which no cache stores.
        fn into_response(self) -> Response {
            self.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, TokenManager, TokenOptions};

    #[tokio::test]
    async fn a_login_is_answered_as_clients_expect() {
        let manager: TokenManager = TokenManager::new(MemoryStore::new());
        let ttl = std::time::Duration::from_secs(3600);
        let issued = manager
            .set_token_with("al", TokenOptions::new().ttl(ttl))
            .await
            .unwrap();
        let text = issued.token.expose_secret().to_owned();
        let plain: Response<String> = issued.token.clone().into();
        assert_eq!(*plain.body(), text);
        let response: Response<String> = issued.into();
        let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        let expected = json!({ "access_token": text, "token_type": "Bearer", "expires_in": 3600 });
        assert_eq!(body, expected);
        for headers in [plain.headers(), response.headers()] {
            assert_eq!(headers[CACHE_CONTROL], "no-store");
        }
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
