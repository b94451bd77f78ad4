// gRPC's interoperability tests over mTLS: `interop server` and `interop client CASE...`.
// In: addresses, certificates, the names of cases. Out: of the client a line PASS for each case; the first that fails ends it.
// Upstream's own programs bind every address and present no certificate of a client.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: interop client|server")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	address := flags.String("address", "", "where the server listens")
	files := files{
		certificate: flags.String("certificate", "", "own certificate; a server without one speaks in clear"),
		key:         flags.String("key", "", "its key"),
		ca:          flags.String("ca", "", "signs the other side's certificate"),
	}
	// A bad flag has ended the program.
	_ = flags.Parse(os.Args[2:])
	switch os.Args[1] {
	case "client":
		runCases(*address, files, flags.Args())
	case "server":
		serve(*address, files)
	default:
		log.Fatal("usage: interop client|server")
	}
}

type files struct {
	certificate, key, ca *string
}

func (f files) load() (tls.Certificate, *x509.CertPool) {
	own, err := tls.LoadX509KeyPair(*f.certificate, *f.key)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(*f.ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatal(*f.ca, ": no certificate")
	}
	return own, roots
}
