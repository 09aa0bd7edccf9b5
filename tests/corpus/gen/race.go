//go:build race

package main

import (
	"fmt"
	"os"
	"time"
	"unsafe"
)

type cart struct{ items int }

//go:noinline
func (c *cart) add() { c.items++ }

//go:noinline
func (c *cart) count() int { return c.items }

func init() {
	once := func() {
		c := &cart{}
		done := make(chan int)
		go func() { c.add(); time.Sleep(5 * time.Millisecond); close(done) }()
		time.Sleep(10 * time.Millisecond)
		fmt.Fprintln(os.Stdout, c.count())
		<-done
	}
	report := "race\tdata race: read in main.(*cart).count, previous write in main.(*cart).add"
	register("race", []string{report}, once)
	register("race-panic", []string{report, "panic\tafter the race"}, func() { once(); panic("after the race") })
	register("race-workers", []string{"race\tdata race: read in main.(*cart).add, previous write in main.(*cart).add"}, func() {
		c := &cart{}
		go func() { c.add(); time.Sleep(time.Hour) }()
		time.Sleep(10 * time.Millisecond)
		go func() { c.add(); time.Sleep(time.Hour) }()
		time.Sleep(20 * time.Millisecond)
	})
	register("checkptr", one("fatal", "checkptr: misaligned pointer conversion"), func() {
		b := make([]*int, 4)
		p := unsafe.Pointer(&b[0])
		fmt.Fprintln(os.Stdout, (*[2]*int)(unsafe.Pointer(uintptr(p)+1)))
	})
}
