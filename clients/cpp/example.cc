// Calls each API of `drawbridge sandbox`, reads an error, and watches a stack to its end, also over
// a restart of the gateway: build/example [STACK_NAME]
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "hitachi/automation/v1/product_info.grpc.pb.h"
#include "huaweicloud/servicestage/v3/application.grpc.pb.h"
#include "openstack/orchestration/v1/stack.grpc.pb.h"

namespace heat = openstack::orchestration::v1;
namespace stage = huaweicloud::servicestage::v3;
namespace jp1ao = hitachi::automation::v1;
using namespace std::chrono_literals;

const char* const kTemplate =
    R"({"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}})";

// Prints the code of a failed call, its reason, and the fields that are invalid.
void Show(const grpc::Status& status) {
  std::cout << "error: " << status.error_code() << " " << status.error_message() << std::endl;
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    if (detail.UnpackTo(&info)) {
      std::cout << "  reason: " << info.reason() << " sent: " << info.metadata().at("sent") << std::endl;
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        std::cout << "  field: " << violation.field() << " " << violation.description() << std::endl;
      }
    }
  }
}

// The context of one call: its deadline, after which it fails with DEADLINE_EXCEEDED.
struct Context : grpc::ClientContext {
  explicit Context(std::chrono::milliseconds timeout) { set_deadline(std::chrono::system_clock::now() + timeout); }
};

// Prints the states of a stack until one is final, or until the stream fails.
grpc::Status Watch(grpc::ClientContext* context, heat::StackService::Stub* stacks, const heat::WatchStackRequest& request,
                   drawbridge::v1::Outcome* outcome) {
  auto stream = stacks->WatchStack(context, request);
  for (heat::WatchStackResponse message; stream->Read(&message);) {
    std::cout << "watch: " << drawbridge::v1::WatchEventType_Name(message.event().type()) << " "
              << message.stack().stack_status_raw() << std::endl;
    *outcome = message.event().outcome();
  }
  return stream->Finish();
}

int main(int argc, char** argv) {
  const char* address = std::getenv("DRAWBRIDGE_ADDR");
  const std::string name = argc > 1 ? argv[1] : "shop-cpp";
  // With TLS, grpc::SslCredentials.
  auto channel = grpc::CreateChannel(address ? address : "127.0.0.1:50051", grpc::InsecureChannelCredentials());
  auto stacks = heat::StackService::NewStub(channel);

  heat::ListStacksResponse list;
  grpc::Status status = stacks->ListStacks(std::make_unique<Context>(10s).get(), {}, &list);
  std::cout << "openstack: " << list.stacks_size() << " stacks" << std::endl;
  stage::ListApplicationsResponse applications;
  if (status.ok()) {
    auto service = stage::ApplicationService::NewStub(channel);
    status = service->ListApplications(std::make_unique<Context>(10s).get(), {}, &applications);
    std::cout << "servicestage: " << applications.applications_size() << " applications" << std::endl;
  }
  jp1ao::GetVersionResponse version;
  if (status.ok()) {
    status = jp1ao::ProductInfoService::NewStub(channel)->GetVersion(std::make_unique<Context>(10s).get(), {}, &version);
    std::cout << "jp1ao: " << version.version().product_name() << " " << version.version().product_version() << std::endl;
  }
  if (!status.ok()) {
    Show(status);
    return 2;
  }

  heat::GetStackResponse stack;
  Show(stacks->GetStack(std::make_unique<Context>(10s).get(), {}, &stack));  // neither a name nor an id
  heat::CreateStackRequest create;
  create.set_stack_name(name);
  create.set_template_(kTemplate);
  heat::CreateStackResponse created;
  status = stacks->CreateStack(std::make_unique<Context>(10s).get(), create, &created);
  if (!status.ok()) Show(status);  // it exists already

  drawbridge::v1::Outcome outcome = drawbridge::v1::OUTCOME_UNSPECIFIED;
  heat::WatchStackRequest follow;  // has no end
  follow.set_stack_name(name);
  follow.set_follow(true);
  Show(Watch(std::make_unique<Context>(500ms).get(), stacks.get(), follow, &outcome));
  grpc::ClientContext cancelled;
  auto stream = stacks->WatchStack(&cancelled, follow);
  heat::WatchStackResponse message;
  stream->Read(&message);
  cancelled.TryCancel();
  while (stream->Read(&message)) {
  }
  std::cout << "cancelled: " << stream->Finish().error_code() << std::endl;

  heat::WatchStackRequest request;
  request.set_stack_name(name);
  while (true) {
    grpc::ClientContext context;  // no deadline: a watch lasts as long as the deployment
    status = Watch(&context, stacks.get(), request, &outcome);
    if (status.ok()) return outcome == drawbridge::v1::OUTCOME_SUCCEEDED ? 0 : 1;  // the state is final
    if (status.error_code() != grpc::UNAVAILABLE) {
      Show(status);
      return 2;
    }
    std::cout << "watch: lost the gateway; calling again" << std::endl;
    std::this_thread::sleep_for(1s);
  }
}
