//! The HTTP/JSON form of calls by itself, without a server behind it: for tests of what it
//! makes of any input.

use actix_web::web;
use bytes::Bytes;
use tonic::Status;

use super::{
    api::{Api, Call},
    call::Rpcs,
    form::Form,
    metadata,
};

/// Takes every call and answers with an empty message.
#[derive(Debug)]
struct Agrees;

impl Rpcs for Agrees {
    async fn call(&self, _: &str, _: Bytes, _: &[(String, String)]) -> Result<Bytes, Status> {
        Ok(Bytes::new())
    }
}

/// Requests to calls, calls to answers, with nobody behind that refuses one.
#[derive(Debug)]
pub struct Transcoder(Api<Agrees>);

impl Transcoder {
    /// Over the routes of the API.
    ///
    /// # Errors
    /// If the descriptors of the API are not understood: a defect of the build.
    pub fn new() -> Result<Self, String> {
        Ok(Self(Api::new(Agrees, usize::MAX)?))
    }

    /// What a request is answered with: status and body. `uri` is a path with its query.
    #[must_use]
    pub fn answer(
        &self,
        method: &str,
        uri: &str,
        content_type: &str,
        timeout: Option<&str>,
        body: Bytes,
    ) -> (u16, Vec<u8>) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let parameters = web::Query::<Vec<(String, String)>>::from_query(query)
            .map(web::Query::into_inner)
            .unwrap_or_default();
        let names = parameters.iter().map(|(name, _)| name.as_str());
        let (form, answer_form) = Form::of_request(content_type, "", names);
        let timeout = timeout.map(|text| (metadata::TIMEOUT.to_owned(), text.to_owned()));
        let metadata = timeout.into_iter().collect();
        let call = Call { method, path, parameters, form, metadata };
        let body = std::future::ready(Ok(body));
        let answer = futures::executor::block_on(self.0.answer(&call, answer_form, body));
        (answer.status, answer.text)
    }
}
