// Calls each API of `drawbridge sandbox`, reads an error, and watches a stack to its end, also over
// a restart of the gateway: java -cp "$(./classpath)" Example [STACK_NAME]

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import drawbridge.hitachi.automation.v1.*;
import drawbridge.huaweicloud.servicestage.v3.*;
import drawbridge.openstack.orchestration.v1.*;
import drawbridge.v1.Outcome;
import io.grpc.*;
import io.grpc.protobuf.StatusProto;
import java.util.Iterator;

public class Example {
  static final String TEMPLATE =
      "{\"heat_template_version\": \"2018-08-31\", \"resources\": {\"server\": {\"type\": \"OS::Heat::TestResource\"}}}";

  /** Prints the code of a failed call, its reason, and the fields that are invalid. */
  static void show(StatusRuntimeException error) throws Exception {
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

  /** Prints the states of a stack until one is final, and returns the outcome. */
  static Outcome watch(Iterator<WatchStackResponse> stream) {
    Outcome outcome = Outcome.OUTCOME_UNSPECIFIED;
    while (stream.hasNext()) {
      WatchStackResponse message = stream.next();
      System.out.println("watch: " + message.getEvent().getType() + " " + message.getStack().getStackStatusRaw());
      outcome = message.getEvent().getOutcome();
    }
    return outcome;
  }

  public static void main(String[] arguments) throws Exception {
    String address = System.getenv().getOrDefault("DRAWBRIDGE_ADDR", "127.0.0.1:50051");
    String name = arguments.length > 0 ? arguments[0] : "shop-java";
    // Without usePlaintext, with TLS.
    ManagedChannel channel = ManagedChannelBuilder.forTarget(address).usePlaintext().build();
    StackServiceGrpc.StackServiceBlockingStub stacks = StackServiceGrpc.newBlockingStub(channel);

    // The deadline is that of all calls of the stub `soon`. After it they fail with DEADLINE_EXCEEDED.
    StackServiceGrpc.StackServiceBlockingStub soon = stacks.withDeadlineAfter(10, SECONDS);
    int count = soon.listStacks(ListStacksRequest.getDefaultInstance()).getStacksCount();
    System.out.println("openstack: " + count + " stacks");
    count = ApplicationServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, SECONDS)
        .listApplications(ListApplicationsRequest.getDefaultInstance()).getApplicationsCount();
    System.out.println("servicestage: " + count + " applications");
    ProductVersion version = ProductInfoServiceGrpc.newBlockingStub(channel).withDeadlineAfter(10, SECONDS)
        .getVersion(GetVersionRequest.getDefaultInstance()).getVersion();
    System.out.println("jp1ao: " + version.getProductName() + " " + version.getProductVersion());

    try {
      soon.getStack(GetStackRequest.getDefaultInstance()); // neither a name nor an id
    } catch (StatusRuntimeException error) {
      show(error);
    }
    try {
      soon.createStack(CreateStackRequest.newBuilder().setStackName(name).setTemplate(TEMPLATE).build());
    } catch (StatusRuntimeException error) {
      show(error); // it exists already
    }

    WatchStackRequest follow = WatchStackRequest.newBuilder().setStackName(name).setFollow(true).build(); // has no end
    try {
      watch(stacks.withDeadlineAfter(500, MILLISECONDS).watchStack(follow));
    } catch (StatusRuntimeException error) {
      show(error);
    }
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
        // A watch has no deadline: it lasts as long as the deployment.
        Outcome outcome = watch(stacks.watchStack(WatchStackRequest.newBuilder().setStackName(name).build()));
        System.exit(outcome == Outcome.OUTCOME_SUCCEEDED ? 0 : 1); // the stream has ended with OK: the state is final
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
