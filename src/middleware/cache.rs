//! What caches may keep of the responses ([RFC 9111](https://www.rfc-editor.org/rfc/rfc9111)).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CACHE_CONTROL, VARY},
};

use super::{mode::Mode, source::TokenSource};

/// What a layer says to caches.
#[derive(Clone, Debug)]
pub(super) struct CachePolicy {
    /// The request header fields that may carry the token.
    vary: Option<HeaderValue>,
    /// Whether a response may be reused for a request with another token, or without one, unless it says otherwise.
    unprotected: bool,
    /// Whether a response is for the client's own cache only, unless the handler says otherwise.
    private: bool,
}

impl CachePolicy {
    /// RFC 9111 §3.5 forbids shared caches to reuse a response to a request with `Authorization`, unless the response
    /// allows it. Nothing protects responses to tokens in other places: they are `private`. An optional layer also answers
    /// requests without a token, and such a response must not be reused for a request with one: `Vary` names the header
    /// fields that may carry the token, of which `Authorization` is one. Only the required layer that reads nothing but
    /// `Authorization` adds nothing to a response without `Cache-Control`.
    pub(super) fn new(mode: Mode, sources: &[TokenSource]) -> Self {
        let private = sources
            .iter()
            .any(|source| source.field() != Some(&AUTHORIZATION));
        let mut names: Vec<&str> = Vec::new();
        for name in sources.iter().filter_map(TokenSource::field) {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        let vary = HeaderValue::try_from(names.join(", ")).ok();
        Self {
            vary: vary.filter(|_| !names.is_empty()),
            unprotected: mode == Mode::Optional || private,
            private,
        }
    }

    /// Adds what is missing in the header of a response.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let is_said = headers.contains_key(CACHE_CONTROL);
        if self.private || is_said {
            self.limit_sharing(headers);
        }
        self.complete_vary(headers, is_said);
    }

    /// Forbids to store a refusal: it says something of one request, and some caches keep a 400 or 503 for a while unless
    /// they are told not to. What a hook says of caching stands.
    pub(super) fn apply_to_refusal(&self, headers: &mut HeaderMap) {
        let is_said = headers.contains_key(CACHE_CONTROL);
        if !is_said {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        self.complete_vary(headers, is_said);
    }

    fn complete_vary(&self, headers: &mut HeaderMap, is_said: bool) {
        if let Some(vary) = self.vary.as_ref().filter(|_| self.unprotected || is_said) {
            add_vary(headers, vary);
        }
    }

    /// Adds `private`, unless the handler has decided what shared caches may do.
    fn limit_sharing(&self, headers: &mut HeaderMap) {
        // With it a shared cache may store a response to a request with `Authorization` (RFC 9111 §3.5), but who says it
        // speaks of something else.
        let loosens = has_directive(headers, &["must-revalidate", "proxy-revalidate"]);
        let is_decided = has_directive(headers, &["public", "s-maxage", "private", "no-store"]);
        if is_decided || !self.private && !loosens {
            return;
        }
        let private = HeaderValue::from_static("private");
        let value = match join(headers, &CACHE_CONTROL) {
            Some(said) => HeaderValue::try_from(said + ", private").unwrap_or(private),
            None => private,
        };
        headers.insert(CACHE_CONTROL, value);
    }
}

/// Whether `Cache-Control` has one of these directives. Of `private` only the form without field names counts: with
/// them, it speaks of these fields alone (RFC 9111 §5.2.2.7).
fn has_directive(headers: &HeaderMap, names: &[&str]) -> bool {
    items(headers, &CACHE_CONTROL).any(|directive| {
        let (name, argument) = match directive.split_once('=') {
            Some((name, argument)) => (name.trim_end(), Some(argument)),
            None => (directive, None),
        };
        let counts = argument.is_none() || !name.eq_ignore_ascii_case("private");
        counts && names.iter().any(|other| name.eq_ignore_ascii_case(other))
    })
}

/// Completes `Vary`.
fn add_vary(headers: &mut HeaderMap, vary: &HeaderValue) {
    if !headers.contains_key(VARY) {
        headers.insert(VARY, vary.clone());
        return;
    }
    let names = vary.to_str().unwrap_or_default().split(", ");
    let there = |name: &str| {
        items(headers, &VARY).any(|item| item == "*" || item.eq_ignore_ascii_case(name))
    };
    let missing = Vec::from_iter(names.filter(|name| !there(name)));
    if let Ok(missing) = HeaderValue::try_from(missing.join(", "))
        && !missing.is_empty()
    {
        headers.append(VARY, missing);
    }
}

/// The items of a list-valued field (RFC 9110 §5.6.1).
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| {
        let mut quoted = false;
        value.split(move |character| {
            quoted ^= character == '"';
            character == ',' && !quoted
        })
    });
    items.map(str::trim).filter(|item| !item.is_empty())
}

/// All values of a list-valued field in one; `None` if there is none.
fn join(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let items = Vec::from_iter(items(headers, name));
    (!items.is_empty()).then(|| items.join(", "))
}
