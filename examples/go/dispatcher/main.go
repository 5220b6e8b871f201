// A dispatcher: submits a task, follows it and prints its result. Any NATS client will do; this is nats.go.
//
//	go run ./dispatcher job-7 'say hello' lang=go
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// call asks until there is an answer: the broker may be away for a while, and asking again does no harm.
func call(nc *nats.Conn, subject string, body []byte, headers nats.Header) (data []byte, code string) {
	for {
		answer, err := nc.RequestMsg(&nats.Msg{Subject: subject, Header: headers, Data: body}, 10*time.Second)
		if err == nil {
			return answer.Data, answer.Header.Get("Nats-Service-Error-Code")
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func main() {
	log.SetFlags(0)
	id, text, headers := os.Args[1], os.Args[2], nats.Header{"Task-Id": {os.Args[1]}} // the id makes it one task
	if len(os.Args) > 3 {
		headers.Set("Task-Requires", os.Args[3])
	}
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	nc.Subscribe("$TASK.P."+id, func(chunk *nats.Msg) { fmt.Println("...", string(chunk.Data)) })
	nc.Subscribe("$TASK.E.TASK."+id, func(event *nats.Msg) {
		var now struct{ Phase, Agent string }
		json.Unmarshal(event.Data, &now)
		fmt.Println("-", now.Phase, now.Agent)
	})
	type Record struct {
		State, Reason string
		Error         struct{ Description string }
	}
	var record Record
	if answer, code := call(nc, "$TASK.API.SUBMIT", []byte(text), headers); code != "" {
		json.Unmarshal(answer, &record)
		log.Fatal("refused: ", record.Error.Description)
	}
	answer, code := call(nc, "$TASK.API.AWAIT."+id, nil, nats.Header{"Task-Wait": {"5s"}})
	for code == "408" || code == "503" { // not finished yet; not available now
		answer, code = call(nc, "$TASK.API.AWAIT."+id, nil, nats.Header{"Task-Wait": {"5s"}})
	}
	if code != "" { // it ended without a result: this is its record
		json.Unmarshal(answer, &record)
		log.Fatal(cmp.Or(record.State, code), ": ", cmp.Or(record.Reason, record.Error.Description))
	}
	fmt.Println(string(answer))
}
