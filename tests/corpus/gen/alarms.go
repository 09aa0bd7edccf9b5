package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// serve lets one handler panic with each of values and waits until net/http has logged them.
func serve(logger *log.Logger, values ...interface{}) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	next := 0
	s := &http.Server{ErrorLog: logger, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		next++
		panic(values[next-1])
	})}
	go s.Serve(l)
	for range values {
		http.Get("http://" + l.Addr().String() + "/cart")
	}
	time.Sleep(20 * time.Millisecond)
}

type printer struct{ depth int }

func (p *printer) print() { debug.PrintStack() }

func init() {
	register("http-panic", one("http_panic", "boom in a handler"), func() {
		log.Print("ready")
		serve(nil, "boom in a handler")
		log.Print("going on")
	})
	register("http-panics", []string{"http_panic\tfirst", "http_panic\tcode 3: the shop is closed", "http_panic\tfirst"}, func() {
		serve(nil, "first\nsecond line", &codeError{3}, "first\nsecond line")
		log.Print("going on")
	})
	register("http-prefix", one("http_panic", "runtime error: index out of range [5] with length 0"), func() {
		serve(log.New(os.Stderr, "shop ", log.Lmsgprefix|log.Lmicroseconds|log.Lshortfile|log.LstdFlags), badIndex())
	})
	register("http-bare", one("http_panic", "bare"), func() { serve(log.New(os.Stderr, "", 0), "bare") })
	register("http-then-panic", []string{"http_panic\tsoft", "panic\thard"}, func() { serve(nil, "soft"); panic("hard") })
	register("print-stack", one("stack", "stack printed by main.(*printer).print"), func() {
		log.Print("before")
		(&printer{}).print()
		log.Print("after")
	})
	register("print-stack-goroutine", one("stack", "stack printed by main.(*printer).print"), func() {
		done := make(chan bool)
		go func() { (&printer{}).print(); close(done) }()
		<-done
	})
	register("print-stack-twice", []string{"stack\tstack printed by main.(*printer).print", "stack\tstack printed by main.(*printer).print"}, func() {
		(&printer{}).print()
		(&printer{}).print()
	})
	register("stack-all", one("stack", "stacks of N goroutines"), func() {
		crowd()
		b := make([]byte, 1<<20)
		os.Stderr.Write(b[:runtime.Stack(b, true)])
		fmt.Fprintln(os.Stderr, "going on")
	})
	register("recovered-report", one("stack", "lookalike"), func() {
		func() {
			defer func() { fmt.Fprintf(os.Stderr, "panic: %v\n\n%s", recover(), debug.Stack()) }()
			panic("lookalike")
		}()
		log.Print("going on")
	})
	register("talk", nil, func() {
		log.Print("http: panic serving nobody at all")
		fmt.Fprintln(os.Stderr, "panic: not really")
		fmt.Fprintln(os.Stderr, "goroutine 5 [running]:")
		fmt.Fprintln(os.Stderr, "runtime: a word from the runtime")
		fmt.Fprintln(os.Stderr, "fatal error: cannot find the cart")
		fmt.Fprintln(os.Stderr, "==================")
		fmt.Fprintln(os.Stderr, "WARNING: no data")
		fmt.Fprintln(os.Stderr, "SIGQUIT: quit")
		fmt.Fprintln(os.Stderr, "exit status 2")
		for i := 0; i < 2000; i++ {
			log.Print("request ", i, " main.f(0x1) panic: no")
		}
	})
	register("exit", nil, func() { log.Print("leaving"); os.Exit(3) })
	register("log-fatal", nil, func() { log.Fatal("cannot go on") })
}

func badIndex() (v interface{}) {
	defer func() { v = recover() }()
	fmt.Fprintln(os.Stdout, make([]int, zero)[zero+5])
	return nil
}
