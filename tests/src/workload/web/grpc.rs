//! gRPC as far as it is echoed: every method takes a text and gives one.

use std::future::{Ready, ready};

use http::Request;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::UnaryService;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// The request and the answer: both are one text, in field 1.
#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    message: String,
}

/// Answers a call with `text`.
pub(super) async fn answer(request: Request<Incoming>, text: String) -> http::Response<Body> {
    let mut server = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
    server.unary(Says(text), request).await
}

struct Says(String);

impl UnaryService<Text> for Says {
    type Response = Text;
    type Future = Ready<Result<tonic::Response<Text>, Status>>;

    fn call(&mut self, _asked: tonic::Request<Text>) -> Self::Future {
        ready(Ok(tonic::Response::new(Text { message: self.0.clone() })))
    }
}

/// Calls a method (`/service/method`); the answer's metadata and text.
pub(super) async fn call(
    channel: Channel,
    method: PathAndQuery,
    metadata: MetadataMap,
) -> Result<(MetadataMap, String), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let mut request = tonic::Request::new(Text { message: "conformance".to_owned() });
    *request.metadata_mut() = metadata;
    let codec = ProstCodec::<Text, Text>::default();
    let answer = client.unary(request, method, codec).await?;
    let (metadata, text, _) = answer.into_parts();
    Ok((metadata, text.message))
}
