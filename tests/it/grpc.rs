//! The example `grpc`, with a tonic client.

use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::examples::Example;

/// The client sees gRPC codes, and after a logout over gRPC the token is worth nothing.
#[tokio::test]
async fn a_tonic_client_gets_codes() {
    let example = Example::start("grpc", &[]);
    assert!(
        example
            .printed
            .contains("without a token: Err(Unauthenticated)")
    );
    assert!(example.printed.contains("with a token: Serving"));
    let token = example
        .printed
        .split_whitespace()
        .last()
        .expect("the token");
    let endpoint = Endpoint::from_shared(example.bases[0].clone()).unwrap();
    let client = HealthClient::new(endpoint.connect().await.unwrap());
    let check = async |authorization: &[&str], service: &str| {
        let mut request = Request::new(HealthCheckRequest {
            service: service.to_owned(),
        });
        for value in authorization {
            let value = value.parse().unwrap();
            request.metadata_mut().append("authorization", value);
        }
        let answer = client.clone().check(request).await;
        answer
            .map(|answer| answer.into_inner().status())
            .map_err(|status| (status.code(), !status.message().is_empty()))
    };
    let bearer = format!("Bearer {token}");
    let refused = Err((Code::Unauthenticated, true));
    assert_eq!(check(&[], "").await, refused);
    assert_eq!(check(&["Bearer x"], "").await, refused);
    assert_eq!(
        check(&[&bearer, &bearer], "").await,
        Err((Code::InvalidArgument, true))
    );
    assert_eq!(check(&[&bearer], "").await, Ok(ServingStatus::Serving));
    assert_eq!(
        check(&[&bearer], "logout").await,
        Ok(ServingStatus::Serving)
    );
    assert_eq!(check(&[&bearer], "").await, refused);
}
