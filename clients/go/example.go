// Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
// restart of the gateway.
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

	jp1ao "drawbridge.example/go/hitachi/automation/v1"
	stage "drawbridge.example/go/huaweicloud/servicestage/v3"
	heat "drawbridge.example/go/openstack/orchestration/v1"
)

const (
	name     = "shop-go"
	template = `{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}`
)

// must returns the response of a call, or ends the program.
func must[T any](response T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return response
}

// show prints the code of a call that has failed, its reason, and the fields that are invalid.
func show(_ any, err error) {
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

// watch prints the states of a stack. Its error is io.EOF once one is final.
func watch(stream heat.StackService_WatchStackClient, err error) error {
	for err == nil {
		var message *heat.WatchStackResponse
		if message, err = stream.Recv(); err == nil {
			fmt.Println("watch:", message.Event.Type, message.Stack.GetStackStatusRaw(), message.Event.Outcome)
		}
	}
	return err
}

func main() {
	address, background := "127.0.0.1:50051", context.Background()
	if set := os.Getenv("DRAWBRIDGE_ADDR"); set != "" {
		address = set
	}
	channel := must(grpc.Dial(address, grpc.WithInsecure())) // with TLS, grpc.WithTransportCredentials
	stacks := heat.NewStackServiceClient(channel)

	// The deadline of these calls. After it they fail with DeadlineExceeded.
	ctx, done := context.WithTimeout(background, 10*time.Second)
	defer done()
	fmt.Println("openstack:", len(must(stacks.ListStacks(ctx, &heat.ListStacksRequest{})).Stacks), "stacks")
	applications := must(stage.NewApplicationServiceClient(channel).ListApplications(ctx, &stage.ListApplicationsRequest{}))
	fmt.Println("servicestage:", len(applications.Applications), "applications")
	version := must(jp1ao.NewProductInfoServiceClient(channel).GetVersion(ctx, &jp1ao.GetVersionRequest{})).Version
	fmt.Println("jp1ao:", version.GetProductName(), version.GetProductVersion())

	show(stacks.GetStack(ctx, &heat.GetStackRequest{})) // neither a name nor an id
	create := &heat.CreateStackRequest{StackName: name, TemplateAs: &heat.CreateStackRequest_Template{Template: template}}
	if created, err := stacks.CreateStack(ctx, create); err != nil {
		show(created, err)
	}
	follow := &heat.WatchStackRequest{StackName: name, Follow: true} // has no end
	short, done := context.WithTimeout(background, 500*time.Millisecond)
	defer done()
	show(nil, watch(stacks.WatchStack(short, follow)))
	cancelled, cancel := context.WithCancel(background)
	stream := must(stacks.WatchStack(cancelled, follow))
	must(stream.Recv())
	cancel()
	_, err := stream.Recv()
	fmt.Println("cancelled:", status.Code(err))

	for {
		// A watch has no deadline: it lasts as long as the deployment.
		err := watch(stacks.WatchStack(background, &heat.WatchStackRequest{StackName: name}))
		if err == io.EOF {
			return
		}
		if status.Code(err) != codes.Unavailable {
			log.Fatal(err)
		}
		fmt.Println("watch: lost the gateway; calling again")
		time.Sleep(time.Second)
	}
}
