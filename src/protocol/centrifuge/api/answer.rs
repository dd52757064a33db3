//! Answers: `{"result":…}` or `{"error":{"code","message"}}`.

use serde::Serialize;

use super::super::error::CommandError;
use super::super::recover::Place;
use crate::Response;

#[derive(Serialize)]
struct Answer<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<T>,
}

#[derive(Serialize)]
struct Failure {
    code: u32,
    message: String,
}

/// The result of a publication.
#[derive(Serialize)]
pub(super) struct Published {
    #[serde(skip_serializing_if = "String::is_empty")]
    epoch: String,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(offset: &u64) -> bool {
    *offset == 0
}

impl From<Option<Place>> for Published {
    fn from(place: Option<Place>) -> Self {
        let Place { epoch, offset } = place.unwrap_or_default();
        Self { epoch, offset }
    }
}

fn parts<T>(result: Result<T, CommandError>) -> Answer<T> {
    match result {
        Ok(result) => Answer { error: None, result: Some(result) },
        Err(error) => {
            Answer { error: Some(Failure { code: error.code(), message: error.message().to_owned() }), result: None }
        }
    }
}

/// A response of status 200, even for an error: the body holds the error code.
pub(super) fn response<T: Serialize>(result: Result<T, CommandError>) -> Response {
    Response::json(200, &parts(result))
}

/// One of the results of a broadcast.
pub(super) fn part<T: Serialize>(result: Result<T, CommandError>) -> impl Serialize {
    parts(result)
}
