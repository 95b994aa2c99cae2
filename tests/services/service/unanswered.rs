//! What fails while a token is judged is the server's fault, whatever the store calls it.

use std::convert::Infallible;

use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_bearer_session::{Error, ErrorKind, SessionLayer, store::Operation};

use super::{Profile, Spy, bearer, logged_in, manager, request};

/// The client has sent nothing but its token, so it is told of no input and no limit: what no repetition cures is a
/// 500.
#[tokio::test]
async fn an_error_of_a_check_is_no_fault_of_the_client() {
    for (kind, status) in [
        (ErrorKind::InvalidInput, 500),
        (ErrorKind::SessionLimit, 500),
        (ErrorKind::Serialize, 500),
        (ErrorKind::Store, 503),
    ] {
        let spy = Spy::default();
        let (token, [required, optional]) = logged_in(&spy, "al").await;
        spy.faults.on(Operation::Check).fail(kind);
        for layer in [required, optional] {
            assert_eq!(answer(&layer, &bearer(&token)).await, status, "{kind:?}");
        }
    }
}

/// The same for the load of a user: a store refuses a value that is too large.
#[tokio::test]
async fn an_error_of_a_load_is_no_fault_of_the_client() {
    for kind in [ErrorKind::InvalidInput, ErrorKind::SessionLimit] {
        let spy = Spy::default();
        let (token, [required, optional]) = logged_in(&spy, "al").await;
        for layer in [required, optional] {
            // There is a marker in the cache, so that the user is all that is written.
            spy.faults.on(Operation::PutUser).heal();
            manager(&spy).delete_user("al").await.unwrap();
            spy.faults.on(Operation::PutUser).fail(kind);
            assert_eq!(answer(&layer, &bearer(&token)).await, 500, "{kind:?}");
        }
    }
}

/// Handlers' errors keep their statuses.
#[tokio::test]
async fn an_error_of_a_handler_keeps_its_status() {
    let (token, [layer, _]) = logged_in(&Spy::default(), "al").await;
    for (kind, status) in [
        (ErrorKind::InvalidInput, 400),
        (ErrorKind::SessionLimit, 409),
    ] {
        let inner = service_fn(async |_: Request<()>| {
            let error = Error::new(kind, "a login that was refused");
            Ok::<_, Infallible>(Response::<String>::from(error))
        });
        let response = layer.layer(inner).oneshot(request([bearer(&token)])).await;
        assert_eq!(response.unwrap().status().as_u16(), status);
    }
}

async fn answer(layer: &SessionLayer<Profile>, bearer: &str) -> u16 {
    let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let response = layer.layer(inner).oneshot(request([bearer])).await;
    response.expect("an answer").status().as_u16()
}
