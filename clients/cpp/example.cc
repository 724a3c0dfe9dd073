// Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
// restart of the gateway.
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

const char* const kName = "shop-cpp";
const char* const kTemplate =
    R"({"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}})";

// Prints the code of a call that has failed, its reason, and the fields that are invalid.
void Show(const grpc::Status& status) {
  if (status.ok()) return;
  std::cout << "error: " << status.error_code() << " " << status.error_message() << std::endl;
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    if (detail.UnpackTo(&info)) {
      std::cout << "  reason: " << info.reason() << " sent: " << info.metadata().at("sent") << std::endl;
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations())
        std::cout << "  field: " << violation.field() << " " << violation.description() << std::endl;
    }
  }
}

// The context of one call: its deadline, after which it fails with DEADLINE_EXCEEDED.
struct Within : grpc::ClientContext {
  explicit Within(std::chrono::milliseconds timeout) { set_deadline(std::chrono::system_clock::now() + timeout); }
};

// Prints the states of a stack until one is final, or until the stream fails.
grpc::Status Watch(std::unique_ptr<grpc::ClientReader<heat::WatchStackResponse>> stream) {
  for (heat::WatchStackResponse message; stream->Read(&message);) {
    std::cout << "watch: " << drawbridge::v1::WatchEventType_Name(message.event().type()) << " "
              << message.stack().stack_status_raw() << " " << drawbridge::v1::Outcome_Name(message.event().outcome())
              << std::endl;
  }
  return stream->Finish();
}

int main() {
  const char* address = std::getenv("DRAWBRIDGE_ADDR");
  // With TLS, grpc::SslCredentials.
  auto channel = grpc::CreateChannel(address ? address : "127.0.0.1:50051", grpc::InsecureChannelCredentials());
  auto stacks = heat::StackService::NewStub(channel);

  heat::ListStacksResponse list;
  Show(stacks->ListStacks(std::make_unique<Within>(10s).get(), {}, &list));
  std::cout << "openstack: " << list.stacks_size() << " stacks" << std::endl;
  stage::ListApplicationsResponse applications;
  Show(stage::ApplicationService::NewStub(channel)->ListApplications(std::make_unique<Within>(10s).get(), {}, &applications));
  std::cout << "servicestage: " << applications.applications_size() << " applications" << std::endl;
  jp1ao::GetVersionResponse version;
  Show(jp1ao::ProductInfoService::NewStub(channel)->GetVersion(std::make_unique<Within>(10s).get(), {}, &version));
  std::cout << "jp1ao: " << version.version().product_name() << " " << version.version().product_version() << std::endl;

  heat::GetStackResponse stack;
  Show(stacks->GetStack(std::make_unique<Within>(10s).get(), {}, &stack));  // neither a name nor an id
  heat::CreateStackRequest create;
  create.set_stack_name(kName);
  create.set_template_(kTemplate);
  heat::CreateStackResponse created;
  Show(stacks->CreateStack(std::make_unique<Within>(10s).get(), create, &created));

  heat::WatchStackRequest request;
  request.set_stack_name(kName);
  heat::WatchStackRequest follow = request;
  follow.set_follow(true);  // has no end
  auto soon = std::make_unique<Within>(500ms);
  Show(Watch(stacks->WatchStack(soon.get(), follow)));
  grpc::ClientContext cancelled;
  auto stream = stacks->WatchStack(&cancelled, follow);
  heat::WatchStackResponse message;
  stream->Read(&message);
  cancelled.TryCancel();
  while (stream->Read(&message)) continue;
  std::cout << "cancelled: " << stream->Finish().error_code() << std::endl;

  while (true) {
    grpc::ClientContext context;  // no deadline: a watch lasts as long as the deployment
    grpc::Status status = Watch(stacks->WatchStack(&context, request));
    if (status.error_code() != grpc::UNAVAILABLE) {
      Show(status);
      return status.error_code();  // OK once the state is final
    }
    std::cout << "watch: lost the gateway; calling again" << std::endl;
    std::this_thread::sleep_for(1s);
  }
}
