// Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
// restart of the gateway.

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import drawbridge.hitachi.automation.v1.*;
import drawbridge.huaweicloud.servicestage.v3.*;
import drawbridge.openstack.orchestration.v1.*;
import io.grpc.*;
import io.grpc.protobuf.StatusProto;
import java.util.Iterator;
import java.util.concurrent.Callable;

public class Example {
  static final String NAME = "shop-java";
  static final String TEMPLATE =
      "{\"heat_template_version\": \"2018-08-31\", \"resources\": {\"server\": {\"type\": \"OS::Heat::TestResource\"}}}";

  /** Makes a call, and prints the code of its error, the reason, and the fields that are invalid. */
  static void attempt(Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (StatusRuntimeException error) {
      System.out.println("error: " + error.getStatus().getCode() + " " + error.getStatus().getDescription());
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          System.out.println("  reason: " + info.getReason() + " sent: " + info.getMetadataOrDefault("sent", ""));
        } else if (detail.is(BadRequest.class)) {
          for (BadRequest.FieldViolation violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
            System.out.println("  field: " + violation.getField() + " " + violation.getDescription());
          }
        }
      }
    }
  }

  /** Prints the states of a stack until one is final. */
  static Void watch(Iterator<WatchStackResponse> stream) {
    stream.forEachRemaining(message -> System.out.println("watch: " + message.getEvent().getType() + " "
        + message.getStack().getStackStatusRaw() + " " + message.getEvent().getOutcome()));
    return null;
  }

  public static void main(String[] arguments) throws Exception {
    String address = System.getenv().getOrDefault("DRAWBRIDGE_ADDR", "127.0.0.1:50051");
    // With TLS, without usePlaintext.
    ManagedChannel channel = ManagedChannelBuilder.forTarget(address).usePlaintext().build();
    StackServiceGrpc.StackServiceBlockingStub stacks = StackServiceGrpc.newBlockingStub(channel);
    // Its calls fail with DEADLINE_EXCEEDED after 10 s from now.
    StackServiceGrpc.StackServiceBlockingStub soon = stacks.withDeadlineAfter(10, SECONDS);

    System.out.println("openstack: " + soon.listStacks(ListStacksRequest.getDefaultInstance()).getStacksCount() + " stacks");
    ListApplicationsResponse applications = ApplicationServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(10, SECONDS).listApplications(ListApplicationsRequest.getDefaultInstance());
    System.out.println("servicestage: " + applications.getApplicationsCount() + " applications");
    ProductVersion version = ProductInfoServiceGrpc.newBlockingStub(channel)
        .withDeadlineAfter(10, SECONDS).getVersion(GetVersionRequest.getDefaultInstance()).getVersion();
    System.out.println("jp1ao: " + version.getProductName() + " " + version.getProductVersion());

    attempt(() -> soon.getStack(GetStackRequest.getDefaultInstance())); // neither a name nor an id
    attempt(() -> soon.createStack(CreateStackRequest.newBuilder().setStackName(NAME).setTemplate(TEMPLATE).build()));
    WatchStackRequest request = WatchStackRequest.newBuilder().setStackName(NAME).build();
    WatchStackRequest follow = request.toBuilder().setFollow(true).build(); // has no end
    attempt(() -> watch(stacks.withDeadlineAfter(500, MILLISECONDS).watchStack(follow)));
    Context.CancellableContext context = Context.current().withCancellation();
    Iterator<WatchStackResponse> stream = context.call(() -> stacks.watchStack(follow));
    stream.next();
    context.cancel(null);
    try {
      stream.next();
    } catch (StatusRuntimeException error) {
      System.out.println("cancelled: " + error.getStatus().getCode());
    }

    while (true) {
      try {
        watch(stacks.watchStack(request)); // no deadline: it lasts as long as the deployment
        return; // the stream has ended with OK: the state is final
      } catch (StatusRuntimeException error) {
        if (error.getStatus().getCode() != Status.Code.UNAVAILABLE) {
          throw error;
        }
        System.out.println("watch: lost the gateway; calling again");
        Thread.sleep(1000);
      }
    }
  }
}
