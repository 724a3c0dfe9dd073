# Calls each API of `drawbridge sandbox`, reads an error, and watches a stack to its end, also over
# a restart of the gateway: ruby example.rb [STACK_NAME]
$LOAD_PATH.unshift(File.join(__dir__, 'gen'))
$stdout.sync = true
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'hitachi/automation/v1/product_info_services_pb'
require 'huaweicloud/servicestage/v3/application_services_pb'
require 'openstack/orchestration/v1/stack_services_pb'

Heat = Drawbridge::OpenStack::Orchestration::V1
Stage = Drawbridge::HuaweiCloud::ServiceStage::V3
Jp1ao = Drawbridge::Hitachi::Automation::V1
TEMPLATE = '{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}'.freeze

address = ENV.fetch('DRAWBRIDGE_ADDR', '127.0.0.1:50051')
name = ARGV.fetch(0, 'shop-ruby')
security = :this_channel_is_insecure # with TLS, GRPC::Core::ChannelCredentials.new
stacks = Heat::StackService::Stub.new(address, security)

# Prints the code of a failed call, its reason, and the fields that are invalid.
def show(error)
  puts "error: #{error.class.name.split('::').last} #{error.details}"
  status = error.metadata['grpc-status-details-bin'] or return
  Google::Rpc::Status.decode(status).details.each do |detail|
    if detail.is(Google::Rpc::ErrorInfo)
      info = detail.unpack(Google::Rpc::ErrorInfo)
      puts "  reason: #{info.reason} sent: #{info.metadata['sent']}"
    elsif detail.is(Google::Rpc::BadRequest)
      detail.unpack(Google::Rpc::BadRequest).field_violations.each { |bad| puts "  field: #{bad.field} #{bad.description}" }
    end
  end
end

# Each call has a deadline; after it, GRPC::DeadlineExceeded.
def soon(seconds = 10)
  Time.now + seconds
end

def attempt
  yield
rescue GRPC::BadStatus => error
  show(error)
end

puts "openstack: #{stacks.list_stacks(Heat::ListStacksRequest.new, deadline: soon).stacks.size} stacks"
service = Stage::ApplicationService::Stub.new(address, security)
applications = service.list_applications(Stage::ListApplicationsRequest.new, deadline: soon).applications
puts "servicestage: #{applications.size} applications"
service = Jp1ao::ProductInfoService::Stub.new(address, security)
version = service.get_version(Jp1ao::GetVersionRequest.new, deadline: soon).version
puts "jp1ao: #{version.product_name} #{version.product_version}"

attempt { stacks.get_stack(Heat::GetStackRequest.new, deadline: soon) } # neither a name nor an id
create = Heat::CreateStackRequest.new(stack_name: name, template: TEMPLATE)
attempt { stacks.create_stack(create, deadline: soon) } # fails if it exists

follow = Heat::WatchStackRequest.new(stack_name: name, follow: true) # has no end
attempt { stacks.watch_stack(follow, deadline: soon(0.5)).each {} }
stream = stacks.watch_stack(follow, return_op: true)
begin
  stream.execute.each { stream.cancel }
rescue GRPC::Cancelled => error
  puts "cancelled: #{error.class}"
end

outcome = nil
begin
  # A watch has no deadline: it lasts as long as the deployment.
  stacks.watch_stack(Heat::WatchStackRequest.new(stack_name: name)).each do |message|
    puts "watch: #{message.event.type} #{message.stack&.stack_status_raw}"
    outcome = message.event.outcome
  end
  # The stream has ended with OK: the state is final.
rescue GRPC::Unavailable
  puts 'watch: lost the gateway; calling again'
  sleep 1
  retry
end
exit outcome == :OUTCOME_SUCCEEDED
