//! `Cache-Control` and `Vary` of responses ([RFC 9111](https://www.rfc-editor.org/rfc/rfc9111)), and the targeted
//! fields that replace `Cache-Control` for some caches ([RFC 9213](https://www.rfc-editor.org/rfc/rfc9213)).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CACHE_CONTROL, EXPIRES, VARY},
};

use super::{mode::Mode, source::TokenSource};

/// The predecessor of targeted fields, for surrogates ([Edge Architecture](https://www.w3.org/TR/edge-arch/)).
const SURROGATE_CONTROL: &str = "surrogate-control";

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
        let targeted = targeted_fields(headers);
        let is_set = headers.contains_key(CACHE_CONTROL) || !targeted.is_empty();
        // A handler that lets all shared caches store the response lets those of a targeted field do so, too.
        let is_shared = has_directive(headers, &CACHE_CONTROL, &["public", "s-maxage"]);
        if !is_shared {
            self.limit_sharing(headers, CACHE_CONTROL);
            for name in targeted {
                self.limit_sharing(headers, name);
            }
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
        self.complete_vary(headers, is_set || headers.keys().any(is_targeted));
    }

    fn complete_vary(&self, headers: &mut HeaderMap, is_set: bool) {
        if let Some(vary) = self.vary.as_ref().filter(|_| self.unprotected || is_set) {
            add_vary(headers, vary);
        }
    }

    /// Adds `private` to `Cache-Control` or a targeted field, unless it says already what shared caches may do.
    fn limit_sharing(&self, headers: &mut HeaderMap, name: HeaderName) {
        // These allow a shared cache to store a response to a request with `Authorization` (RFC 9111 §3.5), but a
        // handler sets them for another purpose.
        let loosens = has_directive(headers, &name, &["must-revalidate", "proxy-revalidate"]);
        // Surrogates do not know `private`.
        let (directive, decisions) = match name.as_str() {
            SURROGATE_CONTROL => ("no-store", &["public", "s-maxage", "no-store"][..]),
            _ => (
                "private",
                &["public", "s-maxage", "private", "no-store"][..],
            ),
        };
        if has_directive(headers, &name, decisions) || !self.private && !loosens {
            return;
        }
        let alone = HeaderValue::from_static(directive);
        let value = match join(headers, &name) {
            Some(present) => {
                HeaderValue::try_from(format!("{present}, {directive}")).unwrap_or(alone)
            }
            None => alone,
        };
        headers.insert(name, value);
    }
}

/// Removes the caching headers of a refusal, which an inner middleware may have set for all its responses.
pub(super) fn remove_caching(headers: &mut HeaderMap) {
    for name in targeted_fields(headers) {
        headers.remove(name);
    }
    headers.remove(CACHE_CONTROL);
    headers.remove(EXPIRES);
}

/// Whether any shared cache may store a response, after [`CachePolicy`] has completed its headers.
pub(super) fn is_shared(headers: &HeaderMap) -> bool {
    let allows = |name| has_directive(headers, name, &["public", "s-maxage"]);
    allows(&CACHE_CONTROL) || headers.keys().any(|name| is_targeted(name) && allows(name))
}

/// The fields that some caches obey in place of `Cache-Control`. Most responses have none, and an empty
/// list allocates nothing.
fn targeted_fields(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = headers.keys().filter(|name| is_targeted(name));
    names.cloned().collect()
}

/// Whether this is a targeted field, which by convention has the suffix `-cache-control` (RFC 9213 §3.1), or its
/// predecessor.
fn is_targeted(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("-cache-control") || name == SURROGATE_CONTROL
}

/// Whether `Cache-Control`, or a field like it, has one of these directives.
///
/// `public`, `private` and `no-store` count only without an argument: `private` with field names applies to these
/// fields alone (RFC 9111 §5.2.2.7), and `public=?0` or `no-store=?0` is false (RFC 8941 §3.3.6).
fn has_directive(headers: &HeaderMap, field: &HeaderName, names: &[&str]) -> bool {
    items(headers, field).any(|directive| {
        let (name, argument) = match directive.split_once('=') {
            Some((name, argument)) => (name.trim_end(), Some(argument)),
            None => (directive, None),
        };
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        let counts = argument.is_none() || !["public", "private", "no-store"].iter().any(is);
        counts && names.iter().any(is)
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
        let (mut quoted, mut escaped) = (false, false);
        value.split(move |character| {
            quoted ^= character == '"' && !escaped;
            escaped = quoted && character == '\\' && !escaped;
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
