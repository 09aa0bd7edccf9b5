package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

type codeError struct{ code int }

func (e *codeError) Error() string { return fmt.Sprintf("code %d: the shop is closed", e.code) }

type badError struct{}

func (badError) Error() string { panic("error of the error") }

type (
	thing struct{ a, b int }
	text  string
	level int
	shape interface{ Area() float64 }
	fork  interface{ Fork() }
)

type square struct{ side float64 }

func (s square) Area() float64 { return s.side * s.side }

type pair[K comparable, V any] struct {
	key   K
	value V
}

//go:noinline
func (p *pair[K, V]) set(m map[K]V) { m[p.key] = p.value }

//go:noinline
func each[T any](list []T, f func(T)) {
	for _, v := range list {
		f(v)
	}
}

var zero int

//go:noinline
func dive(n int) int {
	if n == 0 {
		panic("bottom of the pool")
	}
	return dive(n-1) + 1
}

// crowd starts goroutines that wait in every common way, so that dumps have variety.
func crowd() {
	var mu sync.Mutex
	mu.Lock()
	unread := make(chan int)
	for i := 0; i < 3; i++ {
		go func() { mu.Lock(); mu.Unlock() }()
		go func() { unread <- 1 }()
	}
	go func() { <-unread; <-unread; <-unread; <-unread }()
	go func() { select {} }()
	go func() { time.Sleep(time.Hour) }()
	go func() { runtime.LockOSThread(); time.Sleep(time.Hour) }()
	go func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			l.Accept()
		}
	}()
	go pprof.Do(context.Background(), pprof.Labels("route", "/cart", "who", "a b\"]c", "none", ""), func(context.Context) { time.Sleep(time.Hour) })
	c := sync.NewCond(&sync.Mutex{})
	go func() { c.L.Lock(); c.Wait() }()
	go func() {
		var wg sync.WaitGroup
		wg.Add(1)
		wg.Wait()
	}()
	go func() {
		var p [2]int
		syscall.Pipe(p[:])
		var b [1]byte
		syscall.Read(p[0], b[:])
	}()
	time.Sleep(20 * time.Millisecond)
}

func init() {
	register("panic-string", one("panic", "boom at the shop"), func() { panic("boom at the shop") })
	register("panic-crowd", one("panic", "boom in a crowd"), func() { crowd(); panic("boom in a crowd") })
	register("panic-error", one("panic", "code 7: the shop is closed"), func() { panic(&codeError{7}) })
	register("panic-wrapped", one("panic", "open cart: code 9: the shop is closed"), func() { panic(fmt.Errorf("open cart: %w", &codeError{9})) })
	register("panic-struct", one("panic", "(main.thing) 0xHEX"), func() { panic(thing{1, 2}) })
	register("panic-pointer", one("panic", "(*main.thing) 0xHEX"), func() { panic(&thing{1, 2}) })
	register("panic-text", one("panic", `main.text("said")`), func() { panic(text("said")) })
	register("panic-level", one("panic", "main.level(-4)"), func() { panic(level(-4)) })
	register("panic-int", one("panic", "42"), func() { panic(42) })
	register("panic-float", one("panic", since(26, "1.5", "+1.500000e+000")), func() { panic(1.5) })
	register("panic-nil", one("panic", "nil"), func() { panic(nil) })
	register("panic-empty", one("panic", ""), func() { panic("") })
	register("panic-multiline", one("panic", "first line"), func() { panic("first line\nsecond line\n\n\tfourth line") })
	register("panic-multiline-recovered", one("panic", "third"), func() {
		defer func() { recover(); panic("third\nfourth") }()
		panic("first\nsecond")
	})
	register("panic-wide", one("panic", "x"), func() {
		b := make([]byte, 40000)
		for i := range b {
			b[i] = "x\n\t "[i%4]
		}
		panic(string(b))
	})
	register("panic-nonutf8", one("panic", "bad \uFFFD bytes \uFFFD"), func() { panic("bad \xff bytes \xfe") })
	register("panic-error-panics", one("fatal", since(20, "panic while printing panic value: error of the error", "panic while printing panic value")), func() { panic(badError{}) })

	register("nil-deref", one("panic", "runtime error: invalid memory address or nil pointer dereference"), func() {
		var t *thing
		fmt.Fprintln(os.Stdout, t.b)
	})
	register("nil-map", one("panic", "assignment to entry in nil map"), func() { var m map[string]int; (&pair[string, int]{"a", 1}).set(m) })
	register("index", one("panic", "runtime error: index out of range [7] with length 3"), func() { fmt.Fprintln(os.Stdout, []int{1, 2, 3}[zero+7]) })
	register("slice", one("panic", "runtime error: slice bounds out of range [9:3]"), func() { s := []int{1, 2, 3}; fmt.Fprintln(os.Stdout, s[zero+9:]) })
	register("divide", one("panic", "runtime error: integer divide by zero"), func() { fmt.Fprintln(os.Stdout, 1/zero) })
	register("conversion", one("panic", "interface conversion: main.square is not main.fork: missing method Fork"), func() {
		var s shape = square{2}
		s.(fork).Fork()
	})
	register("close-closed", one("panic", "close of closed channel"), func() { c := make(chan int); close(c); close(c) })
	register("unhashable", one("panic", "runtime error: hash of unhashable type []int"), func() { m := map[interface{}]int{}; m[[]int{1}] = 1 })
	register("makeslice", one("panic", "runtime error: makeslice: len out of range"), func() { fmt.Fprintln(os.Stdout, make([]int, zero-1)) })
	register("waitgroup", one("panic", "sync: negative WaitGroup counter"), func() { var wg sync.WaitGroup; wg.Done() })

	register("repanic-same", one("panic", "again"), func() {
		defer func() { panic(recover()) }()
		panic("again")
	})
	register("repanic-error", one("panic", "runtime error: invalid memory address or nil pointer dereference"), func() {
		defer func() { panic(recover()) }()
		var t *thing
		t.b++
	})
	register("repanic-other", one("panic", "handler gave up: first"), func() {
		defer func() { panic(fmt.Sprint("handler gave up: ", recover())) }()
		panic("first")
	})
	register("panic-in-defer", one("panic", "third"), func() {
		defer func() { panic("third") }()
		defer func() { panic("second") }()
		panic("first")
	})
	register("goexit-panic", one("panic", "after goexit"), func() {
		go func() {
			defer panic("after goexit")
			runtime.Goexit()
		}()
		time.Sleep(time.Hour)
	})
	register("panic-goexit-panic", one("panic", "last"), func() {
		go func() {
			defer func() { panic("last") }()
			defer func() { runtime.Goexit() }()
			panic("lost")
		}()
		time.Sleep(time.Hour)
	})
	register("worker", one("panic", "worker 3 fell over"), func() {
		crowd()
		for i := 0; i < 4; i++ {
			go func(i int) {
				if i == 3 {
					panic(fmt.Sprintf("worker %d fell over", i))
				}
				time.Sleep(time.Hour)
			}(i)
		}
		time.Sleep(time.Hour)
	})
	register("labelled", one("panic", "with labels"), func() {
		crowd()
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("job", "night shift", "tier", "a/b_c.d")))
		panic("with labels")
	})
	register("deep", one("panic", "bottom of the pool"), func() { dive(300) })
	register("generic", one("panic", "found 2"), func() {
		each([]int{1, 2, 3}, func(v int) {
			if v == 2 {
				panic(fmt.Sprint("found ", v))
			}
		})
	})
	register("locked", one("panic", "on a locked thread"), func() { runtime.LockOSThread(); panic("on a locked thread") })
	register("timer", one("panic", "in a timer"), func() { time.AfterFunc(time.Millisecond, func() { panic("in a timer") }); time.Sleep(time.Hour) })
	register("finalizer", one("panic", "in a finalizer"), func() {
		runtime.SetFinalizer(&thing{1, 2}, func(*thing) { panic("in a finalizer") })
		for {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	})
	register("log-panic", one("panic", "logged as well"), func() { log.Panic("logged as well") })
	register("error-join", one("panic", "one"), func() {
		panic(joined{errors.New("one"), errors.New("two")})
	})
	register("after-logs", one("panic", "after some talk"), func() {
		log.Print("ready")
		log.Print("panic: only a word in a log line")
		fmt.Fprintln(os.Stderr, "fatal error: is also only a word")
		for i := 0; i < 400; i++ {
			log.Print("request ", i)
		}
		crowd()
		panic("after some talk")
	})
	register("busy", one("panic", "in the middle of talk"), func() {
		crowd()
		for i := 0; i < 3; i++ {
			go func() {
				for {
					fmt.Fprintln(os.Stderr, "2026/01/02 15:04:05 INFO one more request was served")
					time.Sleep(50 * time.Microsecond)
				}
			}()
		}
		time.Sleep(5 * time.Millisecond)
		panic("in the middle of talk")
	})
}

type joined [2]error

func (j joined) Error() string { return j[0].Error() + "\n" + j[1].Error() }
