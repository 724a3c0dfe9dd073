# Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
# restart of the gateway.
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
NAME = 'shop-ruby'.freeze
TEMPLATE = '{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}'.freeze

# An address and its security; with TLS, GRPC::Core::ChannelCredentials.new.
gateway = [ENV.fetch('DRAWBRIDGE_ADDR', '127.0.0.1:50051'), :this_channel_is_insecure]
stacks = Heat::StackService::Stub.new(*gateway)

# Makes a call, and prints the code of its error, the reason, and the fields that are invalid.
def attempt
  yield
rescue GRPC::BadStatus => error
  puts "error: #{error.class.name.split('::').last} #{error.details}"
  Google::Rpc::Status.decode(error.metadata['grpc-status-details-bin'] || '').details.each do |detail|
    if (info = detail.unpack(Google::Rpc::ErrorInfo))
      puts "  reason: #{info.reason} sent: #{info.metadata['sent']}"
    elsif (bad = detail.unpack(Google::Rpc::BadRequest))
      bad.field_violations.each { |violation| puts "  field: #{violation.field} #{violation.description}" }
    end
  end
end

# Returns the deadline of a call; after it, GRPC::DeadlineExceeded.
def soon(seconds = 10) = Time.now + seconds

puts "openstack: #{stacks.list_stacks(Heat::ListStacksRequest.new, deadline: soon).stacks.size} stacks"
listed = Stage::ApplicationService::Stub.new(*gateway).list_applications(Stage::ListApplicationsRequest.new, deadline: soon)
puts "servicestage: #{listed.applications.size} applications"
version = Jp1ao::ProductInfoService::Stub.new(*gateway).get_version(Jp1ao::GetVersionRequest.new, deadline: soon).version
puts "jp1ao: #{version.product_name} #{version.product_version}"

attempt { stacks.get_stack(Heat::GetStackRequest.new, deadline: soon) } # neither a name nor an id
attempt { stacks.create_stack(Heat::CreateStackRequest.new(stack_name: NAME, template: TEMPLATE), deadline: soon) }
follow = Heat::WatchStackRequest.new(stack_name: NAME, follow: true) # has no end
attempt { stacks.watch_stack(follow, deadline: soon(0.5)).each {} }
stream = stacks.watch_stack(follow, return_op: true)
begin
  stream.execute.each { stream.cancel }
rescue GRPC::Cancelled => error
  puts "cancelled: #{error.class}"
end

begin
  # A watch has no deadline. It ends with OK once the state is final.
  stacks.watch_stack(Heat::WatchStackRequest.new(stack_name: NAME)).each do |message|
    puts "watch: #{message.event.type} #{message.stack&.stack_status_raw} #{message.event.outcome}"
  end
rescue GRPC::Unavailable
  puts 'watch: lost the gateway; calling again'
  sleep 1
  retry
end
