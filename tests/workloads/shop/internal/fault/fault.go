// Package fault breaks the shop on purpose: one function for each way in which a Go program goes wrong.
package fault

import (
	"errors"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"sort"
	"sync"
	"time"
)

// Errors of the call, not of the fault.
var (
	ErrUnknown     = errors.New("no such fault")
	ErrUnavailable = errors.New("not in this build")
)

// Shop is what the faults need of the program that they break.
type Shop interface {
	// HoldCatalogue takes the catalogue's lock and returns what would release it.
	HoldCatalogue() (release func())
	// Quiesce ends everything that could still wake a goroutine: listeners, connections, tickers.
	Quiesce()
	// RequestPanic sends the shop a request whose handler panics.
	RequestPanic()
	// HeapMax bounds the heap-growth fault, in bytes.
	HeapMax() int64
	// Busy bounds the faults that burn time; they end by themselves after it.
	Busy() time.Duration
}

var faults = map[string]func(Shop){
	"nil":            func(Shop) { nilDereference(nil) },
	"index":          func(Shop) { index([]string{"a", "b", "c"}, 7) },
	"custom-error":   func(Shop) { customError(4711) },
	"repanic":        func(Shop) { repanic() },
	"chain":          func(Shop) { chain() },
	"multiline":      func(Shop) { multiline() },
	"handler":        func(s Shop) { s.RequestPanic() },
	"map-writes":     func(Shop) { mapWrites() },
	"deadlock":       deadlock,
	"stack-overflow": func(Shop) { stackOverflow() },
	"goroutine-leak": func(Shop) { goroutineLeak(1000) },
	"lock":           func(s Shop) { s.HoldCatalogue() },
	"oom":            heapGrowth,
	"gc-pressure":    gcPressure,
	"cpu-spin":       cpuSpin,
	"exit":           func(Shop) { os.Exit(3) },
	"log-fatal":      func(Shop) { log.Fatal("the ledger cannot be opened: no such account") },
	"cgo-segv":       func(Shop) { cgoSegv() },
	"race":           func(Shop) { race() },
}

// Names returns all faults, sorted.
func Names() []string {
	names := make([]string, 0, len(faults))
	for name := range faults {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Find returns what raises the named fault in shop.
func Find(name string, shop Shop) (func(), error) {
	raise, ok := faults[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	if name == "cgo-segv" && !haveCgo {
		return nil, fmt.Errorf("%w: %q needs cgo", ErrUnavailable, name)
	}
	return func() { raise(shop) }, nil
}

type order struct {
	id    int
	total int64
}

//go:noinline
func nilDereference(o *order) int64 { return o.total }

//go:noinline
func index(shelf []string, i int) string { return shelf[i] }

// OrderError is a panic value with an Error method.
type OrderError struct {
	Order int
	Cause error
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("order %d cannot be booked: %v", e.Order, e.Cause)
}

//go:noinline
func customError(id int) { panic(&OrderError{Order: id, Cause: os.ErrPermission}) }

//go:noinline
func repanic() {
	defer func() {
		if value := recover(); value != nil {
			panic(value)
		}
	}()
	panic("the warehouse does not answer")
}

//go:noinline
func chain() {
	defer func() { panic("the roll-back failed too") }()
	panic("the booking failed")
}

//go:noinline
func multiline() {
	panic("the price table is inconsistent:\n  sku-0003: 310 and 299\n  sku-0017: 828 and 0\ncheck the last import")
}

// mapWrites only updates keys that exist, so that the map never grows: the detector speaks before anything is damaged.
//
//go:noinline
func mapWrites() {
	stock := make(map[int]int)
	for i := 0; i < 1000; i++ {
		stock[i] = i
	}
	var wg sync.WaitGroup
	for w := 0; w < 4; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			updateStock(stock)
		}()
	}
	wg.Wait()
}

//go:noinline
func updateStock(stock map[int]int) {
	for {
		for i := 0; i < 1000; i++ {
			stock[i]++
		}
	}
}

// deadlock takes two locks in opposite order. The runtime notices only where nothing else can wake up: a goroutine in the network poller, a timer, or
// signal.Notify (whose receiver counts as a thread in a system call) each keep it silent, and so does cgo. The sleep is a timer that brings back the
// thread which may still sit in the poller because of a listener that is closed by now.
func deadlock(s Shop) {
	s.Quiesce()
	time.Sleep(10 * time.Millisecond)
	var stock, ledger sync.Mutex
	stock.Lock()
	locked := make(chan struct{})
	go bookReturn(&ledger, &stock, locked)
	<-locked
	bookOrder(&ledger)
}

//go:noinline
func bookReturn(ledger, stock *sync.Mutex, locked chan<- struct{}) {
	ledger.Lock()
	close(locked)
	stock.Lock()
}

//go:noinline
func bookOrder(ledger *sync.Mutex) { ledger.Lock() }

// stackOverflow lowers the limit, because the default asks for 1.5 GB before the runtime gives up.
func stackOverflow() {
	debug.SetMaxStack(32 << 20)
	descend(&category{})
}

type category struct {
	parent *category
	path   [16]int
}

//go:noinline
func descend(c *category) int {
	child := category{parent: c}
	return descend(&child) + child.path[0] + 1
}

func goroutineLeak(n int) {
	for i := 0; i < n; i++ {
		go awaitReply(make(chan int))
	}
}

//go:noinline
func awaitReply(reply chan int) { reply <- 1 }

var hoard [][]byte

// heapGrowth touches what it takes, so that it counts for the kernel as well.
func heapGrowth(s Shop) {
	const step = 16 << 20
	for held := int64(0); held < s.HeapMax(); held += step {
		hoard = append(hoard, hoardMore(step))
	}
	log.Printf("heap growth: stopped at %d bytes, its bound", s.HeapMax())
}

//go:noinline
func hoardMore(n int) []byte {
	block := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		block[i] = 1
	}
	return block
}

var sink []byte

func gcPressure(s Shop) {
	for end := time.Now().Add(s.Busy()); time.Now().Before(end); {
		for i := 0; i < 1000; i++ {
			sink = make([]byte, 64<<10)
		}
	}
}

var turns uint64

func cpuSpin(s Shop) {
	for end := time.Now().Add(s.Busy()); time.Now().Before(end); {
		spin()
	}
}

//go:noinline
func spin() {
	for i := 0; i < 1_000_000; i++ {
		turns += uint64(i) ^ turns<<1
	}
}

// race is seen by the race detector in binaries built with -race, and by nobody else.
//
//go:noinline
func race() {
	visits := 0
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		countVisit(&visits)
	}()
	countVisit(&visits)
	wg.Wait()
	log.Printf("race: %d visits counted", visits)
}

//go:noinline
func countVisit(visits *int) { *visits++ }
