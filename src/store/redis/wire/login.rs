//! The login at servers.

use std::{fmt, io, pin::Pin, sync::Arc};

use redis::RedisConnectionInfo;
use tower::BoxError;

use super::{errors::ErrorText, given};

/// The credentials of a login.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

/// The credentials of a login at a Redis server, as a source of credentials returns them: see
/// [`RedisStoreBuilder::credentials_from`](crate::RedisStoreBuilder::credentials_from).
#[derive(Clone)]
pub struct RedisCredentials(Credentials);

impl RedisCredentials {
    /// Those of an ACL user.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Credentials {
            username: Some(username.into()),
            password: Some(password.into()),
        })
    }

    /// Those of the default user.
    pub fn of_default_user(password: impl Into<String>) -> Self {
        Self(Credentials {
            username: None,
            password: Some(password.into()),
        })
    }
}

impl fmt::Debug for RedisCredentials {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCredentials")
            .field("username", &self.0.username)
            .finish_non_exhaustive()
    }
}

type Getting = Pin<Box<dyn Future<Output = Result<RedisCredentials, BoxError>> + Send>>;

/// Where the credentials of each new connection come from.
#[derive(Clone)]
pub(crate) enum Login {
    With(Credentials),
    From(CredentialsSource),
}

/// A function of the application.
#[derive(Clone)]
pub(crate) struct CredentialsSource(Arc<dyn Fn() -> Getting + Send + Sync>);

impl CredentialsSource {
    pub(crate) fn new<F, Fut, E>(get: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<RedisCredentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let getting = get();
            Box::pin(async move { getting.await.map_err(Into::into) })
        }))
    }
}

impl Login {
    /// Adds the credentials to the settings of a connection. No text of an error will quote the password.
    pub(crate) async fn add_to(
        &self,
        mut settings: RedisConnectionInfo,
        errors: &ErrorText,
    ) -> io::Result<RedisConnectionInfo> {
        let credentials = match self {
            Self::With(credentials) => credentials.clone(),
            Self::From(CredentialsSource(get)) => {
                let get = Arc::clone(get);
                let getting = given::run("their source", async move { get().await });
                let RedisCredentials(credentials) = getting.await.map_err(|error| {
                    io::Error::other(format!("no credentials for the login: {error}"))
                })?;
                errors.keep_out_for_now(credentials.password.as_deref());
                credentials
            }
        };
        if let Some(username) = credentials.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = credentials.password {
            settings = settings.set_password(password);
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_that_panics_fails_like_one_that_returns_an_error() {
        async fn never() -> Result<RedisCredentials, BoxError> {
            panic!("hunter2 is old")
        }
        let at_once = || -> std::future::Ready<Result<RedisCredentials, BoxError>> {
            panic!("hunter2 is old")
        };
        for source in [
            CredentialsSource::new(never),
            CredentialsSource::new(at_once),
        ] {
            let login = Login::From(source);
            let settings = RedisConnectionInfo::default();
            let failed = login.add_to(settings, &ErrorText::default()).await;
            let error = failed.unwrap_err().to_string();
            assert_eq!(
                error,
                "no credentials for the login: their source has panicked"
            );
        }
    }
}
