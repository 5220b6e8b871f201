// An agent: registers, works on what it is given and says how it went. Any NATS client will do; this is nats.go.
//
//	go run ./agent gil
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const slots = 4

type Card struct {
	Stream, Consumer, Control, Presence, Resume string
	LeaseS                                      float64 `json:"lease_s"`
}

// call asks until there is an answer: the broker may be away for a while, and asking again does no harm.
func call(nc *nats.Conn, subject string, body []byte) (data []byte, refused string) {
	for {
		if answer, err := nc.Request(subject, body, 5*time.Second); err == nil {
			return answer.Data, answer.Header.Get("Nats-Service-Error")
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func register(nc *nats.Conn, name string, before Card) (card Card) {
	request, _ := json.Marshal(map[string]any{"labels": []string{"lang=go"}, "slots": slots, "resume": before.Resume})
	answer, refused := call(nc, "$TASK.API.AGENT.REGISTER."+name, request)
	if refused != "" || json.Unmarshal(answer, &card) != nil {
		log.Fatal("cannot register: ", refused)
	}
	if card.Presence != before.Presence { // to listen there is to be there: when it ends, our tasks go to others
		nc.Subscribe(card.Presence, func(*nats.Msg) {})
	}
	return card
}

// shout is the work itself.
func shout(ctx context.Context, nc *nats.Conn, text, progress string) ([]byte, error) {
	for _, word := range strings.Fields(text) {
		if word == "impossible" {
			return nil, errors.New("that is impossible")
		}
		nc.Publish(progress, []byte(strings.ToUpper(word)))
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.New("stopped as told")
		}
	}
	return []byte(strings.ToUpper(text)), nil
}

// keep holds the lease of silent work.
func keep(ctx context.Context, task jetstream.Msg, leaseS float64) {
	if told, err := strconv.ParseFloat(task.Headers().Get("Task-Lease"), 64); err == nil {
		leaseS = told
	}
	for ctx.Err() == nil {
		select {
		case <-time.After(time.Duration(leaseS / 3 * float64(time.Second))):
			task.InProgress()
		case <-ctx.Done():
		}
	}
}

func work(ctx context.Context, nc *nats.Conn, task jetstream.Msg) {
	headers, verdict := task.Headers(), "Task-Complete"
	body, err := shout(ctx, nc, string(task.Data()), headers.Get("Task-Progress"))
	if err != nil {
		verdict = "Task-Fail"
		body, _ = json.Marshal(map[string]any{"error": err.Error(), "retry": false})
	}
	_, refused := call(nc, headers.Get(verdict), body)
	task.Ack()
	fmt.Println(headers.Get("Task-Id"), verdict, refused)
}

func main() {
	name := append(os.Args, "gil")[1]
	var latest atomic.Pointer[Card] // with the token that keeps our leases when we come back
	again := func(nc *nats.Conn) {
		card := register(nc, name, *latest.Load())
		latest.Store(&card)
	}
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL), nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.ReconnectHandler(again))
	if err != nil {
		log.Fatal(err)
	}
	card := register(nc, name, Card{})
	latest.Store(&card)

	var running sync.Map // how to stop each task
	var busy sync.WaitGroup
	var draining atomic.Bool
	nc.Subscribe(card.Control, func(message *nats.Msg) {
		var told struct{ Op, Task string }
		json.Unmarshal(message.Data, &told)
		if told.Op == "drain" {
			draining.Store(true)
		} else if stop, ok := running.Load(told.Task); ok && told.Op == "cancel" {
			stop.(context.CancelFunc)()
		}
	})
	interrupted, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	context.AfterFunc(interrupted, func() { call(nc, "$TASK.API.AGENT.DRAIN."+name, nil) })

	js, _ := jetstream.New(nc)
	consumer, err := js.Consumer(context.Background(), card.Stream, card.Consumer)
	if err != nil {
		log.Fatal(err)
	}
	for fetched := 0; fetched > 0 || !draining.Load(); {
		fetched = 0
		batch, err := consumer.Fetch(slots, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			time.Sleep(500 * time.Millisecond)
			continue
		}
		for task := range batch.Messages() {
			fetched++
			ctx, stop := context.WithCancel(context.Background())
			id := task.Headers().Get("Task-Id")
			running.Store(id, stop)
			busy.Go(func() {
				go keep(ctx, task, card.LeaseS)
				work(ctx, nc, task)
				stop()
				running.Delete(id)
			})
		}
	}
	busy.Wait()
	nc.Drain()
}
