// Three requests by Go's net/http, each on a connection of its own.
//
// Usage: client URL CA CERTIFICATE KEY cache|plain: with a ClientSessionCache or without one.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
)

func main() {
	url, ca, certificate, key, mode := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	pem, err := os.ReadFile(ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	if mode == "cache" {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	for range 3 {
		answer, err := client.Get(url)
		check(err)
		_, err = io.ReadAll(answer.Body)
		check(err)
		check(answer.Body.Close())
		if answer.StatusCode != 200 {
			os.Exit(1)
		}
	}
}

func check(err error) {
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}
