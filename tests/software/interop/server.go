package main

import (
	"crypto/tls"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testing "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
)

// Answers until it is killed.
func serve(address string, files files) {
	options := []grpc.ServerOption{orca.CallMetricsServerOption(nil)}
	if *files.certificate != "" {
		own, roots := files.load()
		configuration := tls.Config{
			Certificates: []tls.Certificate{own},
			ClientCAs:    roots,
			ClientAuth:   tls.RequireAndVerifyClientCert,
		}
		options = append(options, grpc.Creds(credentials.NewTLS(&configuration)))
	}
	server := grpc.NewServer(options...)
	recorder := orca.NewServerMetricsRecorder()
	service := interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: recorder})
	testing.RegisterTestServiceServer(server, service)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}
