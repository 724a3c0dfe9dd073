//! Calls each API of `drawbridge sandbox`, reads an error, and watches a stack to its end, also
//! over a restart of the gateway: cargo run [STACK_NAME]

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use api::drawbridge::v1::Outcome;
use api::hitachi::automation::v1 as jp1ao;
use api::huaweicloud::servicestage::v3 as stage;
use api::openstack::orchestration::v1 as heat;

#[allow(clippy::all, dead_code)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

type Stacks = heat::stack_service_client::StackServiceClient<Channel>;

const TEMPLATE: &str = r#"{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}"#;

/// Prints the code of a failed call, its reason, and the fields that are invalid.
fn show(status: &Status) {
    println!("error: {:?} {}", status.code(), status.message());
    if let Some(info) = status.get_details_error_info() {
        println!("  reason: {} sent: {}", info.reason, info.metadata["sent"]);
    }
    for bad in status.get_details_bad_request().iter().flat_map(|bad| &bad.field_violations) {
        println!("  field: {} {}", bad.field, bad.description);
    }
}

/// A request with a deadline, after which the call fails with DEADLINE_EXCEEDED.
fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Prints the states of a stack until one is final, and returns the outcome.
async fn watch(stacks: &mut Stacks, request: Request<heat::WatchStackRequest>) -> Result<Outcome, Status> {
    let mut stream = stacks.watch_stack(request).await?.into_inner();
    let mut outcome = Outcome::Unspecified;
    while let Some(message) = stream.message().await? {
        let event = message.event.unwrap_or_default();
        let status = message.stack.and_then(|stack| stack.stack_status_raw);
        println!("watch: {} {}", event.r#type().as_str_name(), status.unwrap_or_default());
        outcome = event.outcome();
    }
    Ok(outcome)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::var("DRAWBRIDGE_ADDR").unwrap_or("127.0.0.1:50051".to_owned());
    let name = std::env::args().nth(1).unwrap_or("shop-rust".to_owned());
    let channel = Channel::from_shared(format!("http://{address}"))?.connect_lazy();
    let mut stacks = Stacks::new(channel.clone());
    let soon = Duration::from_secs(10);

    let list = stacks.list_stacks(within(soon, heat::ListStacksRequest::default())).await?;
    println!("openstack: {} stacks", list.get_ref().stacks.len());
    let mut applications = stage::application_service_client::ApplicationServiceClient::new(channel.clone());
    let list = applications.list_applications(within(soon, stage::ListApplicationsRequest::default())).await?;
    println!("servicestage: {} applications", list.get_ref().applications.len());
    let mut product = jp1ao::product_info_service_client::ProductInfoServiceClient::new(channel);
    let version = product.get_version(within(soon, jp1ao::GetVersionRequest {})).await?.into_inner().version;
    let version = version.unwrap_or_default();
    println!("jp1ao: {} {}", version.product_name(), version.product_version());

    // Neither a name nor an id.
    if let Err(status) = stacks.get_stack(within(soon, heat::GetStackRequest::default())).await {
        show(&status);
    }
    let create = heat::CreateStackRequest {
        stack_name: name.clone(),
        template_as: Some(heat::create_stack_request::TemplateAs::Template(TEMPLATE.to_owned())),
        ..Default::default()
    };
    if let Err(status) = stacks.create_stack(within(soon, create)).await {
        show(&status); // it exists already
    }

    let watched = heat::WatchStackRequest { stack_name: name, ..Default::default() };
    let follow = heat::WatchStackRequest { follow: true, ..watched.clone() }; // has no end
    if let Err(status) = watch(&mut stacks, within(Duration::from_millis(500), follow.clone())).await {
        show(&status);
    }
    let mut stream = stacks.watch_stack(follow).await?.into_inner();
    stream.message().await?;
    drop(stream); // cancels the call
    println!("cancelled");

    loop {
        // A watch has no deadline: it lasts as long as the deployment.
        match watch(&mut stacks, Request::new(watched.clone())).await {
            Ok(Outcome::Succeeded) => return Ok(()), // the stream has ended with OK: the state is final
            Ok(outcome) => return Err(outcome.as_str_name().into()),
            // A connection that breaks is UNKNOWN for tonic.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => {
                println!("watch: lost the gateway; calling again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}
