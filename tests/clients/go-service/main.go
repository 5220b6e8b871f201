// A micro service of nats.go that works on tasks of the queue `words` and knows nothing of tasks but its metadata. Ends with
// its standard input.
package main

import (
	"io"
	"log"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func main() {
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	service, err := micro.AddService(nc, micro.Config{
		Name:     "upper-go",
		Version:  "1.0.0",
		Metadata: map[string]string{"task.queue": "words", "task.slots": "2", "task.caps": "lang=go"},
		Endpoint: &micro.EndpointConfig{Subject: "upper.go", Handler: micro.HandlerFunc(func(request micro.Request) {
			word := string(request.Data())
			if word == "bad" {
				_ = request.Error("422", "no word", nil)
				return
			}
			headers := micro.Headers{"X-By": []string{request.Headers().Get("Task-Id")}}
			_ = request.Respond([]byte(strings.ToUpper(word)), micro.WithHeaders(headers))
		})},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = service.Stop()
}
