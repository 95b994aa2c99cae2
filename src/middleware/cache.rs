//! `Cache-Control` and `Vary` of responses ([RFC 9111](https://www.rfc-editor.org/rfc/rfc9111)).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CACHE_CONTROL, VARY},
};

use super::{mode::Mode, source::TokenSource};

/// The caching headers that a layer adds to responses.
#[derive(Clone, Debug)]
pub(super) struct CachePolicy {
    /// The request header fields that may carry the token.
    vary: Option<HeaderValue>,
    /// Whether caches may, by default, reuse a response for a request with another token or without one.
    unprotected: bool,
    /// Whether responses are `private`, unless the handler decides otherwise.
    private: bool,
}

impl CachePolicy {
    /// Chooses the headers for a layer with this mode and these token sources.
    ///
    /// RFC 9111 §3.5 forbids shared caches to reuse a response to a request with `Authorization`, unless the response
    /// allows it. Nothing protects responses to tokens in other places, so they are `private`. An optional layer also
    /// answers requests without a token, and such a response must not be reused for a request with one: `Vary` names
    /// the header fields that may carry the token, `Authorization` included. Only a required layer that reads nothing
    /// but `Authorization` adds nothing to a response without `Cache-Control`.
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

    /// Completes the caching headers of a response of the inner service.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let is_set = headers.contains_key(CACHE_CONTROL);
        if self.private || is_set {
            self.limit_sharing(headers);
        }
        self.complete_vary(headers, is_set);
    }

    /// Forbids caches to store a refusal, unless the hook has set `Cache-Control`.
    ///
    /// A refusal concerns one request, and some caches keep a 400 or 503 for a while by default.
    pub(super) fn apply_to_refusal(&self, headers: &mut HeaderMap) {
        let is_set = headers.contains_key(CACHE_CONTROL);
        if !is_set {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        self.complete_vary(headers, is_set);
    }

    fn complete_vary(&self, headers: &mut HeaderMap, is_set: bool) {
        if let Some(vary) = self.vary.as_ref().filter(|_| self.unprotected || is_set) {
            add_vary(headers, vary);
        }
    }

    /// Adds `private`, unless the handler has decided what shared caches may do.
    fn limit_sharing(&self, headers: &mut HeaderMap) {
        // These allow a shared cache to store a response to a request with `Authorization` (RFC 9111 §3.5), but a
        // handler sets them for another purpose.
        let loosens = has_directive(headers, &["must-revalidate", "proxy-revalidate"]);
        let is_decided = has_directive(headers, &["public", "s-maxage", "private", "no-store"]);
        if is_decided || !self.private && !loosens {
            return;
        }
        let private = HeaderValue::from_static("private");
        let value = match join(headers, &CACHE_CONTROL) {
            Some(present) => HeaderValue::try_from(present + ", private").unwrap_or(private),
            None => private,
        };
        headers.insert(CACHE_CONTROL, value);
    }
}

/// Whether `Cache-Control` has one of these directives. `private` counts only without field names: with them, it
/// applies to these fields alone (RFC 9111 §5.2.2.7).
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

/// Adds the missing names to `Vary`.
fn add_vary(headers: &mut HeaderMap, vary: &HeaderValue) {
    if !headers.contains_key(VARY) {
        headers.insert(VARY, vary.clone());
        return;
    }
    let names = vary.to_str().unwrap_or_default().split(", ");
    let is_present = |name: &str| {
        items(headers, &VARY).any(|item| item == "*" || item.eq_ignore_ascii_case(name))
    };
    let missing = Vec::from_iter(names.filter(|name| !is_present(name)));
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

/// Joins all values of a list-valued field; `None` without any.
fn join(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let items = Vec::from_iter(items(headers, name));
    (!items.is_empty()).then(|| items.join(", "))
}
