// Command dying panics while 10,000 goroutines wait in four places. On standard output it says when, in Unix nanoseconds.
package main

import (
	"flag"
	"fmt"
	"sync"
	"time"
)

func main() {
	goroutines := flag.Int("goroutines", 10_000, "waiting goroutines")
	flag.Parse()

	var started sync.WaitGroup
	started.Add(*goroutines)
	never := make(chan struct{})
	var held sync.Mutex
	held.Lock()
	for i := 0; i < *goroutines; i++ {
		i := i
		go descend(i%7, func() {
			started.Done()
			switch i % 4 {
			case 0:
				<-never
			case 1:
				held.Lock()
			case 2:
				select {
				case <-never:
				case <-time.After(time.Hour):
				}
			default:
				time.Sleep(time.Hour)
			}
		})
	}
	started.Wait()
	// The last ones are on their way from Done to their place.
	time.Sleep(200 * time.Millisecond)
	fmt.Println(time.Now().UnixNano())
	panic("10,000 goroutines watch")
}

//go:noinline
func descend(depth int, then func()) {
	if depth > 0 {
		descend(depth-1, then)
		return
	}
	then()
}
