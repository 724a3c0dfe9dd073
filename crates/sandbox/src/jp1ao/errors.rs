//! Errors of JP1/AO, with messages in two languages.

use http::{Method, StatusCode};
use serde_json::json;

use super::Call;
use super::json_layout::print;
use crate::message::Response;

/// Reason for an error response. Statuses: docs/apis/jp1ao.md, "Error codes", and the
/// tables of the calls.
#[derive(Debug, PartialEq, Eq)]
pub enum ApiError {
    /// Wrong or missing credentials, or an expired token.
    Login,
    /// The user has no service group.
    NoGroup,
    /// The user's role does not permit the function.
    Forbidden,
    /// Does not exist, or the user may not see it.
    Absent,
    /// Unknown function.
    NoFunction,
    /// The function exists for another method.
    Method,
    /// Invalid query parameter.
    Query(String),
    /// Invalid body.
    Body(String),
    /// Invalid or unsupported XML.
    Xml,
    /// The state of the object does not permit it.
    State(&'static str),
    /// Another object depends on it.
    InUse,
    /// The maximum number is reached.
    Limit,
    /// The name is in use.
    Taken,
    /// None of the accepted types is available.
    NotAcceptable,
    /// Unsupported type of the body.
    MediaType,
    /// The server is not running.
    Down,
    /// This task can only be archived, not deleted.
    Archive(u64),
}

impl ApiError {
    pub fn body(what: impl Into<String>) -> Self {
        Self::Body(what.into())
    }

    /// Returns status, message id, English and Japanese text. Of the ids only
    /// KNAE02102-E and `generic error` are documented.
    fn words(&self) -> (StatusCode, &'static str, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Login => (
                S::UNAUTHORIZED,
                "KNAE02101-E",
                "Authentication failed.",
                "認証に失敗しました。",
            ),
            Self::NoGroup => (
                S::UNAUTHORIZED,
                "KNAE02106-E",
                "You do not have permission for any service group.",
                "サービスグループに対する権限がありません。",
            ),
            Self::Forbidden => (
                S::FORBIDDEN,
                "KNAE02107-E",
                "You do not have permission to execute the operation.",
                "操作を実行する権限がありません。",
            ),
            Self::Absent => (
                S::NOT_FOUND,
                "KNAE02102-E",
                "The specified resource does not exist, or you do not have permission to access it.",
                "指定されたリソースが存在しないか、アクセスする権限がありません。",
            ),
            Self::NoFunction => (
                S::NOT_FOUND,
                "KNAE02102-E",
                "The specified function does not exist.",
                "指定された機能は存在しません。",
            ),
            Self::Method => (
                S::METHOD_NOT_ALLOWED,
                "KNAE02105-E",
                "The method is not allowed.",
                "メソッドは許可されていません。",
            ),
            Self::Query(_) => (
                S::BAD_REQUEST,
                "KNAE02104-E",
                "A query parameter is invalid.",
                "クエリパラメタが不正です。",
            ),
            Self::Body(_) => (
                S::BAD_REQUEST,
                "KNAE02108-E",
                "The request body is invalid.",
                "リクエストボディが不正です。",
            ),
            Self::Xml => (
                S::BAD_REQUEST,
                "generic error",
                "generic error",
                "generic error",
            ),
            Self::State(_) => (
                S::CONFLICT,
                "KNAE02103-E",
                "The status of the resource does not allow the operation.",
                "リソースの状態が操作を許可していません。",
            ),
            Self::InUse => (
                S::CONFLICT,
                "KNAE02109-E",
                "The resource is in use.",
                "リソースは使用中です。",
            ),
            Self::Limit => (
                S::BAD_REQUEST,
                "KNAE02110-E",
                "The maximum number of resources is reached.",
                "リソース数が上限に達しています。",
            ),
            Self::Taken => (
                S::BAD_REQUEST,
                "KNAE02111-E",
                "The specified name already exists.",
                "指定された名前は既に存在します。",
            ),
            Self::NotAcceptable => (S::NOT_ACCEPTABLE, "", "", ""),
            Self::MediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "KNAE02112-E",
                "The content type is not supported.",
                "コンテントタイプがサポートされていません。",
            ),
            Self::Down => (
                S::PRECONDITION_FAILED,
                "KNAE02113-E",
                "The server is not available.",
                "サーバが利用できません。",
            ),
            Self::Archive(_) => (S::SEE_OTHER, "", "", ""),
        }
    }

    /// Builds the response: an error body (docs/apis/jp1ao.md, "Error body"), none for
    /// a 406, HTML for the 303 of V12 2.7.4.
    pub fn to_response(&self, call: &Call<'_>) -> Response {
        let (status, id, english, japanese) = self.words();
        match self {
            Self::NotAcceptable => return Response::empty(status),
            Self::Archive(task) => {
                let to = call.link(&format!("objects/Tasks/{task}/actions/archive"));
                let html = format!(
                    "<html><head><title>303 See Other</title></head><body><a href=\"{to}\">here</a></body></html>"
                );
                return Response::raw(status, "text/html", html).with_header("location", to);
            }
            _ => {}
        }
        let japanese_wanted = call.japanese();
        let message = if japanese_wanted { japanese } else { english };
        let mut body = json!({
            "errorSource": call.link(call.request.path.strip_prefix("/Automation/v1/").unwrap_or("")),
            "message": message,
            "messageID": id,
            "application": "Automation",
        });
        let data = match self {
            Self::Query(detail) | Self::Body(detail) => Some(detail.as_str()),
            Self::State(state) => Some(*state),
            _ => None,
        };
        if let Some(data) = data {
            // Limited, because it can repeat client input.
            body["messageData"] = data.chars().take(200).collect::<String>().into();
        }
        let language = if japanese_wanted { "ja" } else { "en" };
        Response::raw(status, "application/json", print(&body)).with_header("language", language)
    }
}

/// Response of the web server to a path outside the product.
pub fn not_of_the_product(method: &Method) -> Response {
    let html =
        "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>";
    let response = Response::raw(StatusCode::NOT_FOUND, "text/html", html);
    match *method {
        Method::HEAD => Response::empty(StatusCode::NOT_FOUND),
        _ => response,
    }
}
