package main

import (
	"context"
	"crypto/tls"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testing "google.golang.org/grpc/interop/grpc_testing"
)

const (
	caseTimeout = 60 * time.Second
	soakCalls   = 40
	soakWorkers = 4
	// Larger than a connection's first window, so that each call waits for credit.
	soakRequestBytes  = 271828
	soakResponseBytes = 314159
	soakCallTimeout   = 20 * time.Second
)

type client struct {
	address    string
	option     grpc.DialOption
	connection *grpc.ClientConn
	service    testing.TestServiceClient
}

func runCases(address string, files files, names []string) {
	own, roots := files.load()
	configuration := tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots}
	option := grpc.WithTransportCredentials(credentials.NewTLS(&configuration))
	c := client{address: address, option: option, connection: dial(address, option)}
	c.service = testing.NewTestServiceClient(c.connection)
	for _, name := range names {
		run, known := cases[name]
		if !known {
			log.Fatal("no such case: ", name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
		run(ctx, c)
		cancel()
		log.Println("PASS", name)
	}
}

// A case ends the program itself when it fails.
var cases = map[string]func(context.Context, client){
	"empty_unary":                 func(ctx context.Context, c client) { interop.DoEmptyUnaryCall(ctx, c.service) },
	"large_unary":                 func(ctx context.Context, c client) { interop.DoLargeUnaryCall(ctx, c.service) },
	"client_streaming":            func(ctx context.Context, c client) { interop.DoClientStreaming(ctx, c.service) },
	"server_streaming":            func(ctx context.Context, c client) { interop.DoServerStreaming(ctx, c.service) },
	"ping_pong":                   func(ctx context.Context, c client) { interop.DoPingPong(ctx, c.service) },
	"empty_stream":                func(ctx context.Context, c client) { interop.DoEmptyStream(ctx, c.service) },
	"timeout_on_sleeping_server":  func(ctx context.Context, c client) { interop.DoTimeoutOnSleepingServer(ctx, c.service) },
	"cancel_after_begin":          func(ctx context.Context, c client) { interop.DoCancelAfterBegin(ctx, c.service) },
	"cancel_after_first_response": func(ctx context.Context, c client) { interop.DoCancelAfterFirstResponse(ctx, c.service) },
	"status_code_and_message":     func(ctx context.Context, c client) { interop.DoStatusCodeAndMessage(ctx, c.service) },
	"special_status_message":      func(ctx context.Context, c client) { interop.DoSpecialStatusMessage(ctx, c.service) },
	"custom_metadata":             func(ctx context.Context, c client) { interop.DoCustomMetadata(ctx, c.service) },
	"unimplemented_method":        func(ctx context.Context, c client) { interop.DoUnimplementedMethod(ctx, c.connection) },
	"unimplemented_service": func(ctx context.Context, c client) {
		interop.DoUnimplementedService(ctx, testing.NewUnimplementedServiceClient(c.connection))
	},
	"rpc_soak": func(ctx context.Context, c client) {
		soak(ctx, c, func() (*grpc.ClientConn, func()) { return c.connection, func() {} })
	},
	"channel_soak": func(ctx context.Context, c client) {
		soak(ctx, c, func() (*grpc.ClientConn, func()) {
			connection := dial(c.address, c.option)
			return connection, func() { connection.Close() }
		})
	},
}

func soak(ctx context.Context, c client, channel func() (*grpc.ClientConn, func())) {
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize:                      soakRequestBytes,
		ResponseSize:                     soakResponseBytes,
		PerIterationMaxAcceptableLatency: soakCallTimeout,
		OverallTimeout:                   caseTimeout,
		ServerAddr:                       c.address,
		NumWorkers:                       soakWorkers,
		Iterations:                       soakCalls,
		ChannelForTest:                   channel,
	})
}

func dial(address string, option grpc.DialOption) *grpc.ClientConn {
	connection, err := grpc.NewClient(address, option)
	if err != nil {
		log.Fatal(err)
	}
	return connection
}
