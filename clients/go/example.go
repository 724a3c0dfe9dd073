// Calls each API of `drawbridge sandbox`, reads an error, and watches a stack to its end, also over
// a restart of the gateway: go run . [STACK_NAME]
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	drawbridge "drawbridge.example/go/drawbridge/v1"
	automation "drawbridge.example/go/hitachi/automation/v1"
	servicestage "drawbridge.example/go/huaweicloud/servicestage/v3"
	orchestration "drawbridge.example/go/openstack/orchestration/v1"
)

const template = `{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}`

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// show prints the code of a failed call, its reason, and the fields that are invalid.
func show(err error) {
	failed, _ := status.FromError(err)
	fmt.Println("error:", failed.Code(), failed.Message())
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("  reason:", detail.Reason, "sent:", detail.Metadata["sent"])
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fmt.Println("  field:", violation.Field, violation.Description)
			}
		}
	}
}

// watch prints the states of a stack until one is final, or until the stream fails.
func watch(ctx context.Context, stacks orchestration.StackServiceClient, request *orchestration.WatchStackRequest) (drawbridge.Outcome, error) {
	stream, err := stacks.WatchStack(ctx, request)
	outcome := drawbridge.Outcome_OUTCOME_UNSPECIFIED
	for err == nil {
		var message *orchestration.WatchStackResponse
		if message, err = stream.Recv(); err == nil {
			fmt.Println("watch:", message.Event.Type, message.Stack.GetStackStatusRaw())
			outcome = message.Event.Outcome
		}
	}
	return outcome, err
}

func main() {
	address, name := "127.0.0.1:50051", "shop-go"
	if set := os.Getenv("DRAWBRIDGE_ADDR"); set != "" {
		address = set
	}
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	// Without TLS; with TLS, grpc.WithTransportCredentials.
	channel, err := grpc.Dial(address, grpc.WithInsecure())
	must(err)
	stacks := orchestration.NewStackServiceClient(channel)

	// The deadline of these calls. After it they fail with DeadlineExceeded.
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	list, err := stacks.ListStacks(ctx, &orchestration.ListStacksRequest{})
	must(err)
	fmt.Println("openstack:", len(list.Stacks), "stacks")
	applications, err := servicestage.NewApplicationServiceClient(channel).ListApplications(ctx, &servicestage.ListApplicationsRequest{})
	must(err)
	fmt.Println("servicestage:", len(applications.Applications), "applications")
	version, err := automation.NewProductInfoServiceClient(channel).GetVersion(ctx, &automation.GetVersionRequest{})
	must(err)
	fmt.Println("jp1ao:", version.Version.GetProductName(), version.Version.GetProductVersion())

	_, err = stacks.GetStack(ctx, &orchestration.GetStackRequest{}) // neither a name nor an id
	show(err)
	create := &orchestration.CreateStackRequest{StackName: name, TemplateAs: &orchestration.CreateStackRequest_Template{Template: template}}
	if _, err = stacks.CreateStack(ctx, create); err != nil {
		show(err) // it exists already
	}

	follow := &orchestration.WatchStackRequest{StackName: name, Follow: true} // has no end
	short, done := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer done()
	_, err = watch(short, stacks, follow)
	show(err)
	cancelled, cancel := context.WithCancel(context.Background())
	stream, err := stacks.WatchStack(cancelled, follow)
	must(err)
	_, err = stream.Recv()
	must(err)
	cancel()
	_, err = stream.Recv()
	fmt.Println("cancelled:", status.Code(err))

	for {
		// A watch has no deadline: it lasts as long as the deployment.
		outcome, err := watch(context.Background(), stacks, &orchestration.WatchStackRequest{StackName: name})
		if err == io.EOF { // the state is final
			if outcome != drawbridge.Outcome_OUTCOME_SUCCEEDED {
				os.Exit(1)
			}
			return
		}
		if status.Code(err) != codes.Unavailable {
			log.Fatal(err)
		}
		fmt.Println("watch: lost the gateway; calling again")
		time.Sleep(time.Second)
	}
}
