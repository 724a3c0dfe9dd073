//! Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
//! restart of the gateway.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use api::hitachi::automation::v1::{self as jp1ao, product_info_service_client::ProductInfoServiceClient};
use api::huaweicloud::servicestage::v3::{self as stage, application_service_client::ApplicationServiceClient};
use api::openstack::orchestration::v1::{self as heat, create_stack_request::TemplateAs};

#[allow(clippy::all, dead_code)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

type Stacks = heat::stack_service_client::StackServiceClient<Channel>;

const NAME: &str = "shop-rust";
const TEMPLATE: &str = r#"{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}"#;

/// Prints the code of a call that has failed, its reason, and the fields that are invalid.
fn show<T>(result: Result<T, Status>) {
    let Err(status) = result else { return };
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

/// Prints the states of a stack until one is final.
async fn watch(stacks: &mut Stacks, request: Request<heat::WatchStackRequest>) -> Result<(), Status> {
    let mut stream = stacks.watch_stack(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let event = message.event.unwrap_or_default();
        let status = message.stack.and_then(|stack| stack.stack_status_raw).unwrap_or_default();
        println!("watch: {} {status} {}", event.r#type().as_str_name(), event.outcome().as_str_name());
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::var("DRAWBRIDGE_ADDR").unwrap_or("127.0.0.1:50051".to_owned());
    let channel = Channel::from_shared(format!("http://{address}"))?.connect_lazy();
    let mut stacks = Stacks::new(channel.clone());
    let soon = Duration::from_secs(10);

    let list = stacks.list_stacks(within(soon, heat::ListStacksRequest::default())).await?;
    println!("openstack: {} stacks", list.get_ref().stacks.len());
    let mut applications = ApplicationServiceClient::new(channel.clone());
    let list = applications.list_applications(within(soon, stage::ListApplicationsRequest::default())).await?;
    println!("servicestage: {} applications", list.get_ref().applications.len());
    let response = ProductInfoServiceClient::new(channel).get_version(within(soon, jp1ao::GetVersionRequest {})).await?;
    let version = response.into_inner().version.unwrap_or_default();
    println!("jp1ao: {} {}", version.product_name(), version.product_version());

    // Neither a name nor an id.
    show(stacks.get_stack(within(soon, heat::GetStackRequest::default())).await);
    let template_as = Some(TemplateAs::Template(TEMPLATE.to_owned()));
    let create = heat::CreateStackRequest { stack_name: NAME.to_owned(), template_as, ..Default::default() };
    show(stacks.create_stack(within(soon, create)).await);
    let watched = heat::WatchStackRequest { stack_name: NAME.to_owned(), ..Default::default() };
    let follow = heat::WatchStackRequest { follow: true, ..watched.clone() }; // has no end
    show(watch(&mut stacks, within(Duration::from_millis(500), follow.clone())).await);
    let mut stream = stacks.watch_stack(follow).await?.into_inner();
    stream.message().await?;
    drop(stream); // cancels the call
    println!("cancelled");

    // A watch has no deadline. It ends with OK once the state is final.
    while let Err(status) = watch(&mut stacks, Request::new(watched.clone())).await {
        // A connection that breaks is UNKNOWN for tonic.
        if !matches!(status.code(), Code::Unavailable | Code::Unknown) {
            return Err(status.into());
        }
        println!("watch: lost the gateway; calling again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
