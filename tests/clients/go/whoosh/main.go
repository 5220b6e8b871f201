// WHOOSH and CHORUS on nats.go: agents that come late, are cut off and come back while councils form.
//
// AGENTS and COUNCILS say how many; P95_MS bounds how long a status may take. METRICS=1: the server counts chorus.councils.>.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const offers, statuses = "chorus.councils.forming", "chorus.councils.*.status"

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

func value[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func number(name string, otherwise int) int {
	if text := os.Getenv(name); text != "" {
		return value(strconv.Atoi(text))
	}
	return otherwise
}

// council is the part of statuses and answers that is looked at.
type council struct {
	Council string            `json:"council"`
	Status  string            `json:"status"`
	Members map[string]string `json:"members"`
	Seated  map[string]string `json:"seated"`
}

// agent is one of WHOOSH's: it hears offers, claims a seat, and works for the council it sits in.
type agent struct {
	id string
	// number is which of them all it is.
	number int
	nc     *nats.Conn
	js     jetstream.JetStream
	line   net.Conn
	lock   sync.Mutex
	// steady ones are there from the beginning to the end.
	steady bool
	cuts   atomic.Int64
	offers chan *nats.Msg
	// seat is where it believes to sit, as `<council>.<role>.<n>`.
	seat     string
	consumer string
	world    *world
}

type world struct {
	ctx context.Context
	// How many councils there are, of how many seats each.
	councils, seats int
	lock            sync.Mutex
	late            []time.Duration // of statuses
	heard           map[string]int  // statuses by steady agents
	lateWork        []time.Duration
	done            map[string]bool // tasks
	submits         map[string]time.Time
}

// Dial keeps the line, so that it can be cut.
func (a *agent) Dial(network, address string) (net.Conn, error) {
	line, err := net.DialTimeout(network, address, 20*time.Second)
	a.lock.Lock()
	defer a.lock.Unlock()
	a.line = line
	return line, err
}

// cut ends the connection as a broken network does, without a word.
func (a *agent) cut() {
	a.lock.Lock()
	defer a.lock.Unlock()
	a.cuts.Add(1)
	a.line.Close()
}

func (a *agent) start() {
	a.offers = make(chan *nats.Msg, 256)
	a.nc = value(nats.Connect(os.Getenv("NATS_URL"), nats.Name(a.id), nats.MaxReconnects(-1), nats.Timeout(20*time.Second),
		nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 0), nats.SetCustomDialer(a),
		// A line that is cut is no news.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})))
	a.js = value(jetstream.New(a.nc))
	card := fmt.Sprintf(`{"name":"agent %s","endpoint":"http://%s:8080","status":"available","capabilities":["go","review"],
		"model":"m1","tasks_completed":0,"p2p_addr":"/ip4/10.0.0.1/tcp/9000","cluster_id":"pond","slots":1}`, a.id, a.id)
	var told struct{ Consumer, Presence string }
	answer := value(a.nc.Request("$TASK.API.AGENT.REGISTER."+a.id, []byte(card), 30*time.Second))
	check(json.Unmarshal(answer.Data, &told) == nil && told.Presence != "", "REGISTER: %s", answer.Data)
	a.consumer = told.Consumer
	// What tells on any server that it is there.
	value(a.nc.Subscribe(told.Presence, func(*nats.Msg) {}))
	value(a.nc.Subscribe(statuses, a.status))
	value(a.nc.Subscribe(offers, func(offer *nats.Msg) {
		select {
		case a.offers <- offer:
		default: // It has enough to choose from.
		}
	}))
	check(a.nc.FlushTimeout(30*time.Second) == nil, "no PONG for %s", a.id)
	go a.choose()
}

// choose claims seats of the councils that are offered until it has one.
func (a *agent) choose() {
	bucket := func() (jetstream.KeyValue, error) {
		ctx, cancel := context.WithTimeout(a.world.ctx, 5*time.Second)
		defer cancel()
		return a.js.KeyValue(ctx, "TASK_COUNCILS")
	}
	kv, err := bucket()
	heard := map[string]int{}
	for offer := range a.offers {
		if err != nil {
			// The bucket comes with the first council.
			kv, err = bucket()
		}
		name := offer.Header.Get("Council-ID")
		heard[name]++
		a.lock.Lock()
		seat := a.seat
		a.lock.Unlock()
		if strings.HasPrefix(seat, name+".") && heard[name] > 5 && err == nil && !a.holds(kv, seat) {
			// It was away for too long.
			a.lock.Lock()
			a.seat, seat = "", ""
			a.lock.Unlock()
		}
		seated := seat != ""
		if err != nil || seated {
			continue
		}
		// First the seat that its number says, as by a role; from the second offer on any that is free in any council.
		key := name + "." + seatName(a.number/a.world.councils%a.world.seats)
		if name != fmt.Sprintf("council-%d", a.number%a.world.councils) || heard[name] > 1 {
			if heard[name] < 2 || rand.IntN(2) == 0 {
				continue
			}
			var info council
			answer, err := a.nc.Request("$TASK.API.COUNCIL.INFO."+name, nil, 5*time.Second)
			if err != nil || json.Unmarshal(answer.Data, &info) != nil {
				continue
			}
			var free []string
			for n := range a.world.seats {
				if info.Seated[seatName(n)] == "" {
					free = append(free, seatName(n))
				}
			}
			if len(free) == 0 {
				continue
			}
			key = name + "." + free[rand.IntN(len(free))]
		}
		if a.claim(kv, key) {
			a.lock.Lock()
			a.seat = key
			a.lock.Unlock()
		}
	}
}

// seatName is the nth of a council's seats.
func seatName(n int) string {
	if n == 0 {
		return "tpm.1"
	}
	return fmt.Sprintf("developer.%d", n)
}

// claim is a plain create of the key; whether the seat is the agent's.
func (a *agent) claim(kv jetstream.KeyValue, key string) bool {
	ctx, cancel := context.WithTimeout(a.world.ctx, 5*time.Second)
	defer cancel()
	_, err := kv.Create(ctx, key, []byte(fmt.Sprintf(`{"agent":%q}`, a.id)))
	if err == nil || errors.Is(err, jetstream.ErrKeyExists) {
		return err == nil
	}
	// Cut off in the middle.
	return a.holds(kv, key)
}

// holds asks the bucket who sits there.
func (a *agent) holds(kv jetstream.KeyValue, key string) bool {
	for a.world.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(a.world.ctx, 5*time.Second)
		entry, err := kv.Get(ctx, key)
		cancel()
		if err == nil {
			return strings.Contains(string(entry.Value()), `"`+a.id+`"`)
		}
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return false
		}
	}
	return false
}

func (a *agent) status(message *nats.Msg) {
	published := value(time.Parse(time.RFC3339Nano, message.Header.Get("Published-At")))
	took := time.Since(published)
	var told council
	check(json.Unmarshal(message.Data, &told) == nil, "no status: %s", message.Data)
	check(message.Header.Get("Project") == "pond" && message.Header.Get("UCXL-Address") == "ucxl://a:b@c/d" &&
		message.Header.Get("Repository") == "r" && message.Header.Get("Council-ID") == told.Council &&
		message.Header.Get("Status") == told.Status, "headers of a status: %v", message.Header)
	if a.steady && told.Status == "formed" {
		a.world.lock.Lock()
		a.world.late = append(a.world.late, took)
		a.world.heard[told.Council]++
		a.world.lock.Unlock()
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	if name, _, _ := strings.Cut(a.seat, "."); name == told.Council && told.Members[strings.TrimPrefix(a.seat, name+".")] != a.id {
		// Not its seat after all.
		a.seat = ""
	}
}

// work does one task of the council it sits in.
func (a *agent) work() {
	for a.world.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(a.world.ctx, 10*time.Second)
		consumer, err := a.js.Consumer(ctx, "KV_TASK", a.consumer)
		cancel()
		if err != nil {
			continue
		}
		batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			continue
		}
		for task := range batch.Messages() {
			id := task.Headers().Get("Task-Id")
			a.world.lock.Lock()
			if !a.world.done[id] {
				a.world.lateWork = append(a.world.lateWork, time.Since(a.world.submits[id]))
			}
			a.world.lock.Unlock()
			_, err := a.nc.Request(task.Headers().Get("Task-Complete"), []byte(a.id), 10*time.Second)
			if err == nil {
				a.world.lock.Lock()
				a.world.done[id] = true
				a.world.lock.Unlock()
			}
			task.Ack()
		}
	}
}

func api(nc *nats.Conn, name string, headers nats.Header, body string, answer any) {
	message := &nats.Msg{Subject: "$TASK.API." + name, Header: headers, Data: []byte(body)}
	reply := value(nc.RequestMsg(message, 30*time.Second))
	check(reply.Header.Get("Nats-Service-Error") == "", "%s: %s", name, reply.Data)
	if answer != nil {
		check(json.Unmarshal(reply.Data, answer) == nil, "%s: %s", name, reply.Data)
	}
}

func percentiles(times []time.Duration) (p50, p95, most time.Duration) {
	check(len(times) > 0, "nothing was measured")
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*95/100], times[len(times)-1]
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 110*time.Second)
	defer cancel()
	count, councils := number("AGENTS", 34), number("COUNCILS", 6)
	// A few agents are left without a seat.
	w := &world{ctx: ctx, councils: councils, seats: max(2, count*9/10/councils), heard: map[string]int{}, done: map[string]bool{},
		submits: map[string]time.Time{}}
	nc := value(nats.Connect(os.Getenv("NATS_URL"), nats.Name("whoosh"), nats.MaxReconnects(-1)))
	js := value(jetstream.New(nc))
	value(js.CreateStream(ctx, jetstream.StreamConfig{Name: "CHORUS", Subjects: []string{statuses}}))

	// A fifth comes late, a fifth is cut off again and again.
	agents := make([]*agent, count)
	for n := range agents {
		agents[n] = &agent{id: fmt.Sprintf("whoosh-%d", n), number: n, world: w, steady: n%5 > 1}
	}
	begun := time.Now()
	start := func(wanted func(n int) bool) {
		var all sync.WaitGroup
		gate := make(chan struct{}, 50)
		for n, a := range agents {
			if wanted(n) {
				gate <- struct{}{}
				all.Go(func() { a.start(); <-gate })
			}
		}
		all.Wait()
	}
	start(func(n int) bool { return n%5 != 0 })
	step("%d agents there from the beginning, in %v", count-(count+4)/5, time.Since(begun).Round(time.Millisecond))

	formed := make(chan string, 10*councils)
	value(nc.Subscribe(statuses, func(message *nats.Msg) {
		if message.Header.Get("Status") == "formed" {
			formed <- message.Header.Get("Council-ID")
		}
	}))
	var heardOffers atomic.Int64
	value(nc.Subscribe(offers, func(offer *nats.Msg) {
		check(string(offer.Data) == `{ "issue": 7 }`, "an offer: %s", offer.Data)
		heardOffers.Add(1)
	}))
	check(nc.Flush() == nil, "no PONG")

	forming := time.Now()
	formedAt := map[string]time.Duration{}
	late := make(chan struct{})
	go func() {
		defer close(late)
		time.Sleep(200 * time.Millisecond)
		start(func(n int) bool { return n%5 == 0 })
	}()
	stop := make(chan struct{})
	go func() {
		for round := range 12 {
			for n, a := range agents {
				// Each of them three times.
				if n%5 == 1 && (n/5+round)%4 == 0 {
					a.cut()
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	for n := range councils {
		name := fmt.Sprintf("council-%d", n)
		body := fmt.Sprintf(`{"roles":{"tpm":1,"developer":%d},"offer_to":%q,"status_to":"chorus.councils.%s.status",
			"headers":{"Council-ID":%q,"Project":"pond","Repository":"r","UCXL-Address":"ucxl://a:b@c/d",
			"Published-At":"now","Status":"forming"},"body":{ "issue": 7 },"deadline_s":60}`, w.seats-1, offers, name, name)
		api(nc, "COUNCIL.FORM."+name, nil, body, nil)
	}
	for len(formedAt) < councils {
		select {
		case name := <-formed:
			if _, known := formedAt[name]; !known {
				formedAt[name] = time.Since(forming)
			}
		case <-time.After(60 * time.Second):
			var list any
			api(nc, "COUNCIL.LIST", nil, "", &list)
			fail("%d of %d councils in 60 s: %v", len(formedAt), councils, list)
		}
	}
	<-late
	close(stop)
	cuts := int64(0)
	for _, a := range agents {
		cuts += a.cuts.Load()
	}
	var times []time.Duration
	for _, took := range formedAt {
		times = append(times, took)
	}
	p50, _, most := percentiles(times)
	step("%d councils of %d seats formed: p50 %v, last %v, with %d agents late and %d cuts; %d offers", councils, w.seats,
		p50.Round(time.Millisecond), most.Round(time.Millisecond), (count+4)/5, cuts, heardOffers.Load())

	discovered(nc, count)
	delivered(w, count, councils)
	replayed(ctx, agents, councils)
	worked(nc, w, agents, councils)
	metrics()
	step("all as it should be")
}

// discovered: everybody is in the registry, with what it said of itself.
func discovered(nc *nats.Conn, count int) {
	var list struct {
		Agents                   []map[string]any
		Total, Online, Available int
	}
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		api(nc, "AGENT.LIST", nil, "", &list)
		if list.Available == count || time.Now().After(until) {
			break
		}
	}
	step("%d of %d agents discovered, %d online, %d available", list.Total, count, list.Online, list.Available)
	check(list.Total == count && list.Online == count && list.Available == count, "not all of them")
	for _, card := range list.Agents {
		for _, field := range []string{"id", "name", "endpoint", "status", "capabilities", "model", "last_seen",
			"tasks_completed", "p2p_addr", "cluster_id"} {
			check(card[field] != nil, "%s of %v", field, card)
		}
	}
}

// delivered: those who were there all the time heard every status.
func delivered(w *world, count, councils int) {
	steady := 0
	for n := range count {
		if n%5 > 1 {
			steady++
		}
	}
	wanted, heard := steady*councils, 0
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		heard = 0
		w.lock.Lock()
		for _, n := range w.heard {
			heard += n
		}
		w.lock.Unlock()
		if heard >= wanted || time.Now().After(until) {
			break
		}
	}
	w.lock.Lock()
	p50, p95, most := percentiles(w.late)
	w.lock.Unlock()
	step("statuses heard: %d of %d, loss %.3f %%; p50 %v, p95 %v, max %v", heard, wanted,
		100*(1-float64(heard)/float64(wanted)), p50.Round(time.Microsecond), p95.Round(time.Microsecond), most.Round(time.Microsecond))
	check(float64(heard) > 0.999*float64(wanted), "too few")
	check(heard <= wanted, "some twice")
	bar := time.Duration(number("P95_MS", 5000)) * time.Millisecond
	check(p95 < bar, "p95 is above %v", bar)
}

// replayed: those who were late or cut off read what they missed from the stream.
func replayed(ctx context.Context, agents []*agent, councils int) {
	readers, complete := 0, atomic.Int64{}
	var all sync.WaitGroup
	gate := make(chan struct{}, 20)
	for n, a := range agents {
		if n%5 > 1 {
			continue
		}
		readers++
		gate <- struct{}{}
		all.Go(func() {
			defer func() { <-gate }()
			seen := map[string]bool{}
			consumer := value(a.js.OrderedConsumer(ctx, "CHORUS", jetstream.OrderedConsumerConfig{}))
			messages := value(consumer.Messages())
			defer messages.Stop()
			for len(seen) < councils {
				message, err := messages.Next(jetstream.NextMaxWait(20 * time.Second))
				if err != nil {
					return
				}
				if message.Headers().Get("Status") == "formed" {
					seen[message.Headers().Get("Council-ID")] = true
				}
			}
			complete.Add(1)
		})
	}
	all.Wait()
	step("%d of %d late or cut agents replayed every status", complete.Load(), readers)
	check(int(complete.Load()) == readers, "not all of them")
}

// worked: a task for each council is done by one of its developers.
func worked(nc *nats.Conn, w *world, agents []*agent, councils int) {
	members := map[string]string{}
	for n := range councils {
		var info council
		name := fmt.Sprintf("council-%d", n)
		api(nc, "COUNCIL.INFO."+name, nil, "", &info)
		check(len(info.Members) == w.seats || info.Status == "degraded", "%v", info)
		for seat, id := range info.Members {
			if seat != "tpm.1" {
				members[id] = name
			}
		}
	}
	for _, a := range agents {
		if members[a.id] != "" {
			go a.work()
		}
	}
	for n := range councils {
		name := fmt.Sprintf("council-%d", n)
		w.lock.Lock()
		w.submits["work-"+name] = time.Now()
		w.lock.Unlock()
		api(nc, "SUBMIT", nats.Header{"Task-Id": {"work-" + name}, "Task-Requires": {"council=" + name + ",role=developer"}}, "", nil)
	}
	for n := range councils {
		name := fmt.Sprintf("council-%d", n)
		message := &nats.Msg{Subject: "$TASK.API.AWAIT.work-" + name, Header: nats.Header{"Task-Wait": {"30s"}}}
		result := value(nc.RequestMsg(message, 40*time.Second))
		check(members[string(result.Data)] == name, "the work of %s was done by %q", name, result.Data)
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	p50, p95, _ := percentiles(w.lateWork)
	step("%d of %d tasks done by a developer of their council; submit to delivery p50 %v, p95 %v", councils, councils,
		p50.Round(time.Microsecond), p95.Round(time.Microsecond))
}

// metrics: the series of the councils' subjects.
func metrics() {
	if os.Getenv("METRICS") == "" {
		return
	}
	response := value(http.Get(os.Getenv("MONITORING_URL") + "/metrics"))
	page := string(value(io.ReadAll(response.Body)))
	for _, series := range []string{"natterjack_subject_in_msgs_total", "natterjack_subject_out_msgs_total"} {
		for _, subject := range []string{offers, "chorus.councils.council-0.status"} {
			found := 0.0
			for _, line := range strings.Split(page, "\n") {
				if strings.HasPrefix(line, series+"{") && strings.Contains(line, `subject="`+subject+`"`) {
					found = value(strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64))
				}
			}
			step("%s of %s: %.0f", series, subject, found)
			check(found > 0, "it is not counted")
		}
	}
}
