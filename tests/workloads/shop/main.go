// Shop is a small web shop: the program that goscope's end-to-end tests watch, profile and break.
//
// It keeps its goods in memory, answers /catalogue, /cart and /checkout, runs workers and background jobs, serves net/http/pprof and expvar on a TCP
// port or a unix socket, and has a fault for each way in which Go programs die under /fault/NAME (or -fault NAME).
package main

import (
	"context"
	"expvar"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/shop/internal/fault"
	"example.com/shop/internal/logfmt"
	"example.com/shop/internal/store"
	"example.com/shop/internal/work"
)

type shop struct {
	log       *logfmt.Logger
	catalogue *store.Catalogue
	carts     *store.Carts
	cache     *store.Cache
	orders    *expvar.Int
	pool      *work.Pool

	address string
	heapMax int64
	busy    time.Duration

	ctx     context.Context
	stop    context.CancelFunc
	jobs    sync.WaitGroup
	servers []*http.Server
}

func main() {
	listenAddress := flag.String("listen", "127.0.0.1:0", "`address` of the shop: host:port or unix:///path")
	debugAddress := flag.String("debug", "", "`address` of pprof and expvar: host:port or unix:///path; none by default")
	readyFile := flag.String("ready-file", "", "`file` to write pid and addresses to when both are listening")
	recordFile := flag.String("record-debug", "", "`file` to append each request on the debug address to, as it came in")
	faultName := flag.String("fault", "", "raise this fault after the start: "+strings.Join(fault.Names(), " "))
	noiseSpec := flag.String("noise", "", "write random:BYTES, lines:NUMBER or steady:INTERVAL to stderr; ends the program when done, unless there is a fault")
	graceful := flag.Bool("graceful", false, "count SIGINT and SIGTERM aloud and shut down in order; hides deadlocks from the runtime")
	onTerm := flag.String("on-term", "", "on SIGTERM, raise this fault; dump prints every goroutine and exits with status 1")
	heapMax := flag.Int64("heap-max", 4<<30, "`bytes` at which the oom fault gives up")
	busy := flag.Duration("busy", time.Minute, "how long gc-pressure and cpu-spin last")
	restock := flag.Duration("restock", 500*time.Millisecond, "`interval` of the restocking job")
	report := flag.Duration("report", time.Second, "`interval` of the state line in the log")
	flag.Parse()

	s := &shop{
		log:       logfmt.New(os.Stderr),
		catalogue: store.NewCatalogue(200),
		carts:     store.NewCarts(),
		cache:     store.NewCache(32),
		orders:    expvar.NewInt("shop_orders"),
		heapMax:   *heapMax,
		busy:      *busy,
	}
	expvar.Publish("shop_carts", expvar.Func(func() interface{} { return s.carts.Len() }))
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.pool = work.NewPool(s.ctx, 4)
	if err := s.serve(*listenAddress, *debugAddress, *recordFile, *readyFile); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
	s.every(*restock, func() { s.restock(1000) })
	s.every(*report, s.report)
	if *graceful {
		go s.awaitSignal()
	}
	if *onTerm != "" {
		go s.failOnTerm(*onTerm)
	}
	switch {
	case *noiseSpec != "":
		go s.makeNoise(*noiseSpec, *faultName)
	case *faultName != "":
		s.raise(*faultName)
	}

	<-s.ctx.Done()
	s.pool.Wait()
	s.jobs.Wait()
}

// serve opens the listeners and announces their addresses.
func (s *shop) serve(listenAddress, debugAddress, recordFile, readyFile string) error {
	shopListener, err := s.open(listenAddress, s.routes())
	if err != nil {
		return err
	}
	s.address = addressOf(shopListener)
	var debugListener net.Listener
	if debugAddress != "" {
		handler, err := debugHandler(recordFile)
		if err != nil {
			return err
		}
		if debugListener, err = s.open(debugAddress, handler); err != nil {
			return err
		}
	}
	if readyFile == "" {
		return nil
	}
	return announce(readyFile, shopListener, debugListener)
}

func (s *shop) open(address string, handler http.Handler) (net.Listener, error) {
	listener, err := listen(address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, server)
	go server.Serve(listener)
	return listener, nil
}

func (s *shop) every(interval time.Duration, job func()) {
	s.jobs.Add(1)
	go func() {
		defer s.jobs.Done()
		work.Every(s.ctx, interval, job)
	}()
}

func (s *shop) restock(level int) {
	if added := s.catalogue.Restock(level); added > 0 {
		s.cache.Drop()
		s.log.Info("restocked", "pieces", added)
	}
}

func (s *shop) report() {
	hits, misses := s.cache.Stats()
	s.log.Info("state", "orders", s.orders.Value(), "carts", s.carts.Len(), "hits", hits, "misses", misses)
}

func (s *shop) makeNoise(spec, faultName string) {
	if err := noise(os.Stderr, spec); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
	if faultName == "" {
		os.Exit(0)
	}
	s.raise(faultName)
}

// raise lets a worker raise a fault, as a request to /fault/NAME does.
func (s *shop) raise(name string) {
	fail, err := fault.Find(name, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
	s.pool.Submit(func() {
		s.log.Info("raising fault", "fault", name)
		fail()
		s.log.Info("fault raised", "fault", name)
	})
}

func (s *shop) awaitSignal() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	name := <-signals
	s.log.Info("shutting down", "signal", name)
	again := time.After(200 * time.Millisecond)
	for {
		select {
		case name := <-signals:
			s.log.Error("one more signal", "signal", name)
		case <-again:
			os.Exit(0)
		}
	}
}

// failOnTerm is a shutdown that goes wrong.
func (s *shop) failOnTerm(fault string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	if fault != "dump" {
		s.raise(fault)
		return
	}
	text := make([]byte, 1<<20)
	os.Stderr.Write(text[:runtime.Stack(text, true)])
	os.Exit(1)
}

// Quiesce implements fault.Shop.
func (s *shop) Quiesce() {
	s.stop()
	for _, server := range s.servers {
		server.Close()
	}
}

// RequestPanic implements fault.Shop.
func (s *shop) RequestPanic() {
	response, err := http.Get("http://" + s.address + "/fault/handler")
	if err == nil {
		response.Body.Close()
	}
}

// HoldCatalogue implements fault.Shop.
func (s *shop) HoldCatalogue() func() { return s.catalogue.Hold() }

// HeapMax implements fault.Shop.
func (s *shop) HeapMax() int64 { return s.heapMax }

// Busy implements fault.Shop.
func (s *shop) Busy() time.Duration { return s.busy }
