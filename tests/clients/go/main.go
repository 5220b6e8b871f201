// CodeForge on nats.go 1.48: dispatch to backends, results, retries by the client, sessions in KV, artefacts in objects.
// See scenario.rs for `@kill` and `@start`.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
)

var harness = bufio.NewReader(os.Stdin)

func step(format string, args ...any) { fmt.Printf("- "+format+"\n", args...) }

func fail(format string, args ...any) {
	fmt.Printf("FAILED: "+format+"\n", args...)
	os.Exit(1)
}

func check(ok bool, format string, args ...any) {
	if !ok {
		fail(format, args...)
	}
}

func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func value[T any](v T, err error) T {
	if err != nil {
		// The caller's line says what was tried.
		panic(err)
	}
	return v
}

func equal[T any](found, wanted T, what string) {
	if f, w := fmt.Sprintf("%v", found), fmt.Sprintf("%v", wanted); f != w {
		fail("%s: found %s, wanted %s", what, f, w)
	}
}

// server asks the harness to kill, stop or start the server.
func server(wish string) {
	fmt.Println("@" + wish)
	answer := value(harness.ReadString('\n'))
	equal(answer, "done\n", "the harness on @"+wish)
}

func await[T any](from <-chan T, what string) T {
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		fail("waited in vain for %s", what)
		panic("unreachable")
	}
}

func connect(name string) *nats.Conn {
	return value(nats.Connect(os.Getenv("NATS_URL"), nats.Name(name), nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0)))
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	nc := connect("codeforge")
	defer nc.Close()
	js := value(jetstream.New(nc))
	health()
	dispatch(ctx, nc, js)
	retries(ctx, nc, js)
	core(nc)
	push(nc)
	keyValue(ctx, js)
	objects(ctx, js)
	rules(ctx, js)
	service(nc)
	survives(ctx, nc, js)
	step("all as it should be")
}

func health() {
	step("healthz by GET and by HEAD, as `wget --spider` asks")
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		request := value(http.NewRequest(method, os.Getenv("MONITORING_URL")+"/healthz", nil))
		response := value(http.DefaultClient.Do(request))
		response.Body.Close()
		equal(response.StatusCode, 200, method+" /healthz")
	}
}

func dispatch(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) {
	step("a stream and one durable consumer for each backend")
	value(js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "TASKS", Subjects: []string{"tasks.agent.*"}, Storage: jetstream.FileStorage, MaxAge: time.Hour}))
	for _, backend := range []string{"aider", "openhands"} {
		value(js.CreateOrUpdateConsumer(ctx, "TASKS", jetstream.ConsumerConfig{
			Durable: backend, FilterSubject: "tasks.agent." + backend, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: 30 * time.Second, MaxDeliver: 5}))
	}

	step("dispatch by backend, answer on results.<task id>, headers unchanged")
	results := make(chan *nats.Msg, 20)
	subscription := value(nc.ChanSubscribe("results.*", results))
	must(nc.Flush(), "flush")
	for number := range 20 {
		msg := nats.NewMsg("tasks.agent." + []string{"aider", "openhands"}[number%2])
		msg.Data = fmt.Appendf(nil, "t%d", number)
		msg.Header.Set("X-Request-ID", fmt.Sprintf("req-%d", number))
		msg.Header.Set("Retry-Count", "0")
		ack := value(js.PublishMsg(ctx, msg))
		equal(ack.Sequence, uint64(number+1), "PubAck")
	}
	for _, backend := range []string{"aider", "openhands"} {
		consumer := value(js.Consumer(ctx, "TASKS", backend))
		consuming := value(consumer.Consume(func(msg jetstream.Msg) {
			must(msg.InProgress(), "in progress")
			result := nats.NewMsg("results." + string(msg.Data()))
			result.Header.Set("X-Request-ID", msg.Headers().Get("X-Request-ID"))
			result.Data = []byte(msg.Subject())
			must(nc.PublishMsg(result), "result")
			must(msg.Ack(), "ack")
		}))
		// Its open pull must be gone before somebody else pulls.
		defer func() { consuming.Stop(); await(consuming.Closed(), "the end of a worker") }()
	}
	seen := map[string]bool{}
	for range 20 {
		msg := await(results, "a result")
		seen[msg.Subject+" "+msg.Header.Get("X-Request-ID")+" "+string(msg.Data)] = true
	}
	for number := range 20 {
		backend := []string{"aider", "openhands"}[number%2]
		want := fmt.Sprintf("results.t%d req-%d tasks.agent.%s", number, number, backend)
		check(seen[want], "no %q among %v", want, seen)
	}
	must(subscription.Unsubscribe(), "unsubscribe")
}

func retries(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) {
	step("NakWithDelay comes back after it, counted; the third failure goes to <subject>.dlq")
	dead := make(chan *nats.Msg, 1)
	value(nc.ChanSubscribe("tasks.agent.*.dlq", dead))
	poison := nats.NewMsg("tasks.agent.aider")
	poison.Data = []byte("poison")
	poison.Header.Set("Retry-Count", "0")
	value(js.PublishMsg(ctx, poison))
	consumer := value(js.Consumer(ctx, "TASKS", "aider"))
	for attempt := uint64(1); attempt <= 3; attempt++ {
		began := time.Now()
		msg := value(consumer.Next(jetstream.FetchMaxWait(5 * time.Second)))
		waited := time.Since(began)
		equal(value(msg.Metadata()).NumDelivered, attempt, "delivery count")
		equal(msg.Headers().Get("Retry-Count"), "0", "the stored header never changes")
		check(attempt == 1 || waited > 200*time.Millisecond, "redelivered %v after a nak with 300 ms", waited)
		if attempt < 3 {
			must(msg.NakWithDelay(300*time.Millisecond), "nak")
			continue
		}
		letter := nats.NewMsg(msg.Subject() + ".dlq")
		letter.Data = msg.Data()
		letter.Header.Set("Retry-Count", fmt.Sprint(attempt))
		must(nc.PublishMsg(letter), "dead letter")
		must(msg.TermWithReason("three failures"), "term")
	}
	letter := await(dead, "the dead letter")
	equal(string(letter.Data)+" "+letter.Header.Get("Retry-Count"), "poison 3", "dead letter")
	batch := value(consumer.FetchNoWait(1))
	for msg := range batch.Messages() {
		fail("delivered after term: %s", msg.Data())
	}
	info := value(consumer.Info(ctx))
	equal([]int{info.NumAckPending, int(info.NumPending)}, []int{0, 0}, "nothing left after term")

	step("what the ack wait runs out on is delivered to another worker")
	short := value(js.CreateConsumer(ctx, "TASKS", jetstream.ConsumerConfig{
		Durable: "short", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 300 * time.Millisecond,
		DeliverPolicy: jetstream.DeliverLastPolicy}))
	value(short.Next(jetstream.FetchMaxWait(5 * time.Second)))
	again := value(short.Next(jetstream.FetchMaxWait(5 * time.Second)))
	equal(value(again.Metadata()).NumDelivered, uint64(2), "delivery count")
	must(again.DoubleAck(ctx), "double ack")
	must(js.DeleteConsumer(ctx, "TASKS", "short"), "delete consumer")
}

func core(nc *nats.Conn) {
	step("fan-out to every subscriber, once to a queue group")
	other := connect("codeforge-workers")
	defer other.Close()
	var plain, group atomic.Int64
	arrived := make(chan *nats.Msg, 64)
	for range 3 {
		value(other.Subscribe("events.>", func(m *nats.Msg) { plain.Add(1); arrived <- m }))
		value(other.QueueSubscribe("events.*", "g", func(m *nats.Msg) { group.Add(1); arrived <- m }))
	}
	must(other.Flush(), "flush")
	for number := range 10 {
		must(nc.Publish(fmt.Sprintf("events.%d", number), []byte("x")), "publish")
	}
	for range 40 {
		await(arrived, "an event")
	}
	must(other.Flush(), "flush")
	equal([]int64{plain.Load(), group.Load()}, []int64{30, 10}, "deliveries")

	step("auto-unsubscribe after two messages")
	limited := value(other.SubscribeSync("limited"))
	must(limited.AutoUnsubscribe(2), "auto-unsubscribe")
	must(other.Flush(), "flush")
	for range 5 {
		must(nc.Publish("limited", nil), "publish")
	}
	must(nc.Flush(), "flush")
	must(other.Flush(), "flush")
	for range 2 {
		value(limited.NextMsg(5 * time.Second))
	}
	_, err := limited.NextMsg(time.Second)
	check(errors.Is(err, nats.ErrMaxMessages), "the third: %v", err)

	step("request and reply, and no responders")
	value(other.Subscribe("backend.status", func(m *nats.Msg) { _ = m.Respond(bytes.ToUpper(m.Data)) }))
	must(other.Flush(), "flush")
	reply := value(nc.Request("backend.status", []byte("up?"), 2*time.Second))
	equal(string(reply.Data), "UP?", "reply")
	_, err = nc.Request("backend.nobody", nil, 2*time.Second)
	check(errors.Is(err, nats.ErrNoResponders), "nobody: %v", err)
	rtt := value(nc.RTT())
	check(rtt < time.Second, "round trip %v", rtt)
}

// CodeForge's own code uses the older API: ephemeral and grouped push consumers.
func push(nc *nats.Conn) {
	step("push consumers: ephemeral, queue group, manual acks")
	js := value(nc.JetStream())
	value(js.AddStream(&nats.StreamConfig{Name: "PUSHED", Subjects: []string{"pushed.*"}}))
	pushed := make(chan string, 12)
	handler := func(m *nats.Msg) { must(m.Ack(), "ack"); pushed <- string(m.Data) }
	value(js.Subscribe("pushed.a", handler, nats.ManualAck()))
	for range 2 {
		value(js.QueueSubscribe("pushed.b", "workers", handler, nats.ManualAck()))
	}
	for number := range 6 {
		value(js.Publish("pushed.a", fmt.Appendf(nil, "a%d", number)))
		value(js.Publish("pushed.b", fmt.Appendf(nil, "b%d", number)))
	}
	var found []string
	for range 12 {
		found = append(found, await(pushed, "a pushed message"))
	}
	slices.Sort(found)
	equal(found, []string{"a0", "a1", "a2", "a3", "a4", "a5", "b0", "b1", "b2", "b3", "b4", "b5"}, "pushed messages")

	step("an ordered consumer replays the log in order")
	ordered := value(js.SubscribeSync("pushed.*", nats.OrderedConsumer()))
	for number := uint64(1); number <= 12; number++ {
		msg := value(ordered.NextMsg(5 * time.Second))
		equal(value(msg.Metadata()).Sequence.Stream, number, "replay")
	}
	must(ordered.Unsubscribe(), "unsubscribe")

	step("publish asynchronously, all acked in order")
	var futures []nats.PubAckFuture
	for number := range 500 {
		futures = append(futures, value(js.PublishAsync("pushed.c", fmt.Appendf(nil, "%d", number))))
	}
	await(js.PublishAsyncComplete(), "PubAcks")
	for number, future := range futures {
		equal((<-future.Ok()).Sequence, uint64(13+number), "sequence")
	}
}

func keyValue(ctx context.Context, js jetstream.JetStream) {
	step("KV: put, create, update, history, watch, delete, purge, keys")
	kv := value(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "sessions", History: 5}))
	equal(value(kv.Put(ctx, "s.1", []byte("one"))), uint64(1), "first revision")
	equal(value(kv.Update(ctx, "s.1", []byte("two"), 1)), uint64(2), "updated revision")
	_, err := kv.Update(ctx, "s.1", []byte("late"), 1)
	var apiErr *jetstream.APIError
	check(errors.As(err, &apiErr) && apiErr.ErrorCode == 10071, "a lost race: %v", err)
	value(kv.Create(ctx, "s.2", []byte("new")))
	_, err = kv.Create(ctx, "s.2", []byte("again"))
	check(errors.Is(err, jetstream.ErrKeyExists), "created twice: %v", err)
	equal(string(value(kv.Get(ctx, "s.1")).Value()), "two", "value")
	equal(string(value(kv.GetRevision(ctx, "s.1", 1)).Value()), "one", "value of a revision")
	equal(len(value(kv.History(ctx, "s.1"))), 2, "history")
	keys := value(kv.Keys(ctx))
	slices.Sort(keys)
	equal(keys, []string{"s.1", "s.2"}, "keys")
	watcher := value(kv.Watch(ctx, "s.*"))
	for _, want := range []string{"s.1", "s.2"} {
		equal(await(watcher.Updates(), "an entry").Key(), want, "watched first")
	}
	check(await(watcher.Updates(), "the mark") == nil, "a mark behind what was there")
	must(kv.Delete(ctx, "s.2"), "delete")
	deleted := await(watcher.Updates(), "the delete")
	equal(deleted.Key()+" "+deleted.Operation().String(), "s.2 KeyValueDeleteOp", "watched delete")
	must(watcher.Stop(), "stop")
	_, err = kv.Get(ctx, "s.2")
	check(errors.Is(err, jetstream.ErrKeyNotFound), "a deleted key: %v", err)
	must(kv.Purge(ctx, "s.1"), "purge")
	equal(len(value(kv.History(ctx, "s.1"))), 1, "history after a purge")
	value(kv.Put(ctx, "s.1", []byte("three")))
	equal(value(kv.Status(ctx)).History(), int64(5), "bucket's history")
}

func objects(ctx context.Context, js jetstream.JetStream) {
	step("object store: put, get, info, list, delete")
	store := value(js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "artefacts"}))
	body := bytes.Repeat([]byte("natterjack "), 60_000)
	info := value(store.PutBytes(ctx, "patch.diff", body))
	equal(info.Size, uint64(len(body)), "size")
	check(bytes.Equal(value(store.GetBytes(ctx, "patch.diff")), body), "other bytes")
	equal(len(value(store.List(ctx))), 1, "list")
	must(store.Delete(ctx, "patch.diff"), "delete")
	_, err := store.GetBytes(ctx, "patch.diff")
	check(errors.Is(err, jetstream.ErrObjectNotFound), "a deleted object: %v", err)
}

func rules(ctx context.Context, js jetstream.JetStream) {
	step("dedup, expected sequences, direct gets, lists, purge, delete")
	stream := value(js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "RULES", Subjects: []string{"rules.>"}, AllowDirect: true, MaxMsgsPerSubject: 2}))
	first := value(js.Publish(ctx, "rules.a", []byte("1"), jetstream.WithMsgID("m1")))
	again := value(js.Publish(ctx, "rules.a", []byte("1"), jetstream.WithMsgID("m1")))
	equal(fmt.Sprint(first.Sequence, again.Sequence, again.Duplicate), "1 1 true", "a duplicate")
	_, err := js.Publish(ctx, "rules.a", nil, jetstream.WithExpectLastSequence(7))
	var apiErr *jetstream.APIError
	check(errors.As(err, &apiErr) && apiErr.ErrorCode == 10071, "a wrong expectation: %v", err)
	for range 3 {
		value(js.Publish(ctx, "rules.b", []byte("b")))
	}
	equal(value(stream.Info(ctx)).State.Msgs, uint64(3), "two of a subject are kept")
	equal(string(value(stream.GetMsg(ctx, 1)).Data), "1", "by sequence")
	equal(value(stream.GetLastMsgForSubject(ctx, "rules.b")).Sequence, uint64(4), "last of a subject")
	must(stream.DeleteMsg(ctx, 1), "delete message")
	_, err = stream.GetMsg(ctx, 1)
	check(errors.Is(err, jetstream.ErrMsgNotFound), "a deleted message: %v", err)
	must(stream.Purge(ctx, jetstream.WithPurgeSubject("rules.b"), jetstream.WithPurgeKeep(1)), "purge")
	equal(value(stream.Info(ctx)).State.Msgs, uint64(1), "kept by the purge")
	var names []string
	for name := range js.StreamNames(ctx).Name() {
		names = append(names, name)
	}
	check(slices.Contains(names, "RULES") && slices.Contains(names, "TASKS"), "names %v", names)
	must(js.DeleteStream(ctx, "RULES"), "delete stream")
	_, err = js.Stream(ctx, "RULES")
	check(errors.Is(err, jetstream.ErrStreamNotFound), "a deleted stream: %v", err)
	account := value(js.AccountInfo(ctx))
	check(account.Streams >= 3, "account: %+v", account)
}

func service(nc *nats.Conn) {
	step("a micro service answers and is discovered")
	svc := value(micro.AddService(nc, micro.Config{Name: "reviewer", Version: "1.0.0",
		Endpoint: &micro.EndpointConfig{Subject: "review", Handler: micro.HandlerFunc(func(r micro.Request) {
			_ = r.Respond([]byte("fine"))
		})}}))
	equal(string(value(nc.Request("review", nil, 2*time.Second)).Data), "fine", "service")
	value(nc.Request("$SRV.PING.reviewer", nil, 2*time.Second))
	must(svc.Stop(), "stop")
}

func survives(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) {
	step("kill -9: nothing acked is lost, nothing double-acked comes back, subscriptions resume")
	var last uint64
	for number := range 100 {
		last = value(js.Publish(ctx, "tasks.agent.openhands", fmt.Appendf(nil, "kept %d", number))).Sequence
	}
	consumer := value(js.Consumer(ctx, "TASKS", "openhands"))
	batch := value(consumer.Fetch(40))
	for msg := range batch.Messages() {
		must(msg.DoubleAck(ctx), "double ack")
	}
	kv := value(js.KeyValue(ctx, "sessions"))
	revision := value(kv.Put(ctx, "s.kept", []byte("kept")))
	live := value(nc.SubscribeSync("live"))

	back := make(chan bool, 1)
	var once sync.Once
	nc.SetReconnectHandler(func(*nats.Conn) { once.Do(func() { back <- true }) })
	server("kill")
	server("start")
	await(back, "the reconnect")

	entry := value(kv.Get(ctx, "s.kept"))
	equal(fmt.Sprint(string(entry.Value()), entry.Revision()), fmt.Sprint("kept", revision), "KV entry")
	stream := value(js.Stream(ctx, "TASKS"))
	equal(value(stream.Info(ctx)).State.LastSeq, last, "last sequence")
	consumer = value(js.Consumer(ctx, "TASKS", "openhands"))
	for number := 40; number < 100; number++ {
		msg := value(consumer.Next(jetstream.FetchMaxWait(5 * time.Second)))
		equal(string(msg.Data()), fmt.Sprintf("kept %d", number), "what was left, in order")
		must(msg.Ack(), "ack")
	}
	equal(value(js.Publish(ctx, "tasks.agent.openhands", nil)).Sequence, last+1, "no sequence is reused")
	must(nc.Publish("live", []byte("again")), "publish")
	equal(string(value(live.NextMsg(5*time.Second)).Data), "again", "a subscription after the reconnect")
}
