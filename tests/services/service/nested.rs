use std::convert::Infallible;

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{
    Anonymous, MemoryStore, Rejection, Session, SessionLayer, TokenManager, User,
};

/// Of two layers with the same user type, the inner one has the last word.
#[tokio::test]
async fn the_inner_layer_decides() {
    let managers = [0, 1].map(|_| TokenManager::new(MemoryStore::new()));
    let layers = managers
        .clone()
        .map(|manager| SessionLayer::new(manager).optional());
    let [outer, inner] = layers;
    let service = outer.layer(inner.layer(service_fn(who)));
    for (manager, expected) in managers.iter().zip(["nobody", "al"]) {
        let token = manager.set_token("al", None).await.unwrap();
        let request =
            Request::builder().header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        let response = service.clone().oneshot(request.body(()).unwrap()).await;
        assert_eq!(response.unwrap().body(), expected);
    }
}

/// Who is in the extensions, if they agree with each other.
async fn who(request: Request<()>) -> Result<Response<String>, Infallible> {
    let extensions = request.extensions();
    let user = extensions.get::<User>().map(|user| user.id().to_owned());
    let session = extensions
        .get::<Session>()
        .map(|session| session.user().id().to_owned());
    assert_eq!(user, session);
    assert_eq!(user.is_none(), extensions.get::<Anonymous>().is_some());
    Ok(Response::new(user.unwrap_or_else(|| "nobody".to_owned())))
}

/// Without a live token an optional layer says what a required one would have said, and offers its manager.
#[tokio::test]
async fn an_anonymous_request_has_the_reason_and_the_manager() {
    let manager = TokenManager::new(MemoryStore::new());
    let log_in = service_fn(async |request: Request<()>| {
        let anonymous = request
            .extensions()
            .get::<Anonymous>()
            .expect("an anonymous request");
        let token = anonymous
            .manager()
            .set_token("al", None)
            .await
            .expect("a login");
        let mut response = Response::new(token.expose_secret().to_owned());
        response.extensions_mut().insert(anonymous.reason().clone());
        Ok::<_, Infallible>(response)
    });
    let service = SessionLayer::new(manager.clone()).optional().layer(log_in);
    for (header, status) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some("Bearer x"), StatusCode::UNAUTHORIZED),
    ] {
        let mut request = Request::new(());
        if let Some(header) = header {
            request
                .headers_mut()
                .insert(AUTHORIZATION, header.parse().unwrap());
        }
        let response = service.clone().oneshot(request).await.unwrap();
        let reason = response.extensions().get::<Rejection>().expect("a reason");
        assert_eq!(reason.status(), status);
        assert_eq!(matches!(reason, Rejection::MissingToken), header.is_none());
        assert!(
            manager
                .check_token(response.body())
                .await
                .unwrap()
                .is_some()
        );
    }
}
