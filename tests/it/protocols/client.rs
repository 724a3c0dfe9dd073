//! A client that writes the same call in each protocol, and reads its response.

use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::Value;

use crate::support::Gateway;
use crate::support::web::{Response, Version, frame, frames, from_base64, send, to_base64};

/// How a client writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Json,
    Proto,
    StreamJson,
    StreamProto,
    GrpcWeb,
    GrpcWebText,
}

use Protocol::*;

pub const UNARY: [Protocol; 4] = [Json, Proto, GrpcWeb, GrpcWebText];
pub const STREAMING: [Protocol; 4] = [StreamJson, StreamProto, GrpcWeb, GrpcWebText];

/// A response, in no protocol's form.
#[derive(Debug, PartialEq)]
pub struct Answered {
    pub messages: Vec<Value>,
    /// The name of the code, as Connect has it; none for a success.
    pub code: Option<String>,
    pub message: String,
    /// The types of the details.
    pub details: Vec<String>,
}

impl Protocol {
    pub fn content_type(self) -> &'static str {
        match self {
            Json => "application/json",
            Proto => "application/proto",
            StreamJson => "application/connect+json",
            StreamProto => "application/connect+proto",
            GrpcWeb => "application/grpc-web+proto",
            GrpcWebText => "application/grpc-web-text",
        }
    }

    pub fn body(self, gateway: &Gateway, rpc: &str, request: &Value) -> Vec<u8> {
        let proto = || {
            let method = gateway.client.method(rpc);
            let message = DynamicMessage::deserialize(method.input(), request.clone());
            message.unwrap().encode_to_vec()
        };
        match self {
            Json => request.to_string().into_bytes(),
            StreamJson => frame(0, request.to_string().as_bytes()),
            Proto => proto(),
            StreamProto | GrpcWeb => frame(0, &proto()),
            GrpcWebText => to_base64(&frame(0, &proto())),
        }
    }

    pub async fn call(
        self,
        gateway: &Gateway,
        version: Version,
        rpc: &str,
        request: &Value,
        headers: &[(&str, &str)],
    ) -> Response {
        let method = gateway.client.method(rpc);
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let content_type = [("content-type", self.content_type())];
        let headers = [&content_type, headers].concat();
        let body = self.body(gateway, rpc, request);
        send(gateway.running.grpc, version, "POST", &path, &headers, body).await
    }

    /// Reads a response, and checks the form of the protocol.
    pub fn read(self, gateway: &Gateway, rpc: &str, response: &Response) -> Answered {
        let output = gateway.client.method(rpc).output();
        let proto = |bytes: &[u8]| {
            let message = DynamicMessage::decode(output.clone(), bytes).unwrap();
            serde_json::to_value(&message).unwrap()
        };
        let is_json = matches!(self, Json | StreamJson);
        let message = |bytes: &[u8]| match is_json {
            true => serde_json::from_slice(bytes).unwrap(),
            false => proto(bytes),
        };
        let mut answered = Answered {
            messages: Vec::new(),
            code: None,
            message: String::new(),
            details: Vec::new(),
        };
        match self {
            Json | Proto if response.status == 200 => {
                assert_eq!(response.header("content-type"), self.content_type());
                answered.messages.push(message(&response.body));
            }
            Json | Proto => {
                assert_eq!(response.header("content-type"), "application/json");
                answered.fail(&response.json());
            }
            StreamJson | StreamProto => {
                assert_eq!(response.status, 200);
                assert_eq!(response.header("content-type"), self.content_type());
                let mut all = frames(&response.body);
                let (flags, end) = all.pop().expect("an end");
                assert_eq!(flags, 2);
                for (flags, bytes) in all {
                    assert_eq!(flags, 0);
                    answered.messages.push(message(&bytes));
                }
                let end: Value = serde_json::from_slice(&end).unwrap();
                if let Some(error) = end.get("error") {
                    answered.fail(error);
                }
            }
            GrpcWeb | GrpcWebText => {
                assert_eq!(response.status, 200);
                let (content_type, body) = match self {
                    GrpcWebText => (
                        "application/grpc-web-text+proto",
                        from_base64(&response.body),
                    ),
                    _ => ("application/grpc-web+proto", response.body.to_vec()),
                };
                assert_eq!(response.header("content-type"), content_type);
                let mut all = frames(&body);
                let trailers = match all.pop() {
                    // Only a status.
                    None => response.headers.clone(),
                    Some((flags, text)) => {
                        assert_eq!(flags, 0x80);
                        let text = String::from_utf8(text).unwrap();
                        let lines = text.split("\r\n").filter(|line| !line.is_empty());
                        let lines = lines.map(|line| line.split_once(": ").unwrap());
                        let entry = |(name, value): (&str, &str)| {
                            (
                                name.parse::<http::HeaderName>().unwrap(),
                                value.parse().unwrap(),
                            )
                        };
                        lines.map(entry).collect()
                    }
                };
                for (flags, bytes) in all {
                    assert_eq!(flags, 0);
                    answered.messages.push(message(&bytes));
                }
                let status = tonic::Status::from_header_map(&trailers).expect("a status");
                answered.grpc(&status);
            }
        }
        answered
    }
}

impl Answered {
    fn fail(&mut self, error: &Value) {
        self.code = Some(error["code"].as_str().unwrap().to_owned());
        self.message = error["message"].as_str().unwrap_or_default().to_owned();
        for detail in error["details"].as_array().into_iter().flatten() {
            self.details
                .push(detail["type"].as_str().unwrap().to_owned());
        }
    }

    fn grpc(&mut self, status: &tonic::Status) {
        if status.code() == tonic::Code::Ok {
            return;
        }
        let name = format!("{:?}", status.code());
        let mut code = String::new();
        for (at, c) in name.char_indices() {
            if at > 0 && c.is_uppercase() {
                code.push('_');
            }
            code.push(c.to_ascii_lowercase());
        }
        self.code = Some(code.replace("cancelled", "canceled"));
        self.message = status.message().to_owned();
        let details = tonic_types::pb::Status::decode(status.details()).unwrap();
        for detail in details.details {
            let name = detail.type_url.rsplit('/').next().unwrap();
            self.details.push(name.to_owned());
        }
    }
}
