package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

//go:noinline
func sink(n int, pad [256]byte) int {
	if n < 0 {
		return 0
	}
	pad[n%256]++
	return sink(n+1, pad) + int(pad[(n+1)%256])
}

// hammer writes to a map from several goroutines until the runtime notices.
func hammer(n int) {
	runtime.GOMAXPROCS(4)
	m := make(map[int]int, 1000)
	for i := 0; i < n; i++ {
		go func() {
			for j := 0; ; j++ {
				m[j%1000]++
			}
		}()
	}
	time.Sleep(time.Hour)
}

// dangling is the address of memory that was given back.
//
//go:noinline
func dangling() uintptr {
	addr := uintptr(unsafe.Pointer(&make([]byte, 32<<20)[0]))
	runtime.GC()
	debug.FreeOSMemory()
	return addr
}

func signalSelf(s syscall.Signal) func() {
	return func() {
		crowd()
		syscall.Kill(os.Getpid(), s)
		time.Sleep(time.Hour)
	}
}

func init() {
	register("map-writes", one("fatal", "concurrent map writes"), func() { hammer(2) })
	register("map-writes-crowd", one("fatal", "concurrent map writes"), func() { crowd(); hammer(16) })
	register("map-read-write", one("fatal", "concurrent map read and map write"), func() {
		runtime.GOMAXPROCS(4)
		m := make(map[int]int, 1000)
		go func() {
			for j := 0; ; j++ {
				m[j%1000]++
			}
		}()
		n := 0
		for j := 0; ; j++ {
			n += m[j%1000]
		}
	})
	register("deadlock", one("fatal", "all goroutines are asleep - deadlock!"), func() {
		c := make(chan int)
		var mu sync.Mutex
		mu.Lock()
		go func() { mu.Lock() }()
		<-c
	})
	register("deadlock-goexit", one("fatal", "no goroutines (main called runtime.Goexit) - deadlock!"), func() { runtime.Goexit() })
	register("unlock", one("fatal", "sync: unlock of unlocked mutex"), func() { crowd(); var mu sync.Mutex; mu.Unlock() })
	register("go-nil", one("fatal", "go of nil func value"), func() { var f func(); go f(); time.Sleep(time.Second) })
	register("stack-overflow", one("fatal", "stack overflow"), func() { crowd(); debug.SetMaxStack(1 << 20); fmt.Fprintln(os.Stdout, sink(0, [256]byte{})) })
	register("fatal-in-panic", one("fatal", "sync: unlock of unlocked mutex"), func() {
		var mu sync.Mutex
		defer mu.Unlock()
		panic("pending")
	})
	register("fatal-in-panics", one("fatal", "sync: unlock of unlocked mutex"), func() {
		var mu sync.Mutex
		defer mu.Unlock()
		defer func() { panic("pending second\nline") }()
		panic("pending first")
	})
	register("fault", one("fatal", "fault"), func() { fmt.Fprintln(os.Stdout, *(*int)(unsafe.Pointer(uintptr(0xdeadbeef000) + uintptr(zero)))) })
	register("fault-bus", one("fatal", "fault"), func() {
		f, _ := os.CreateTemp("", "gen")
		os.Remove(f.Name())
		f.Truncate(8192)
		b, err := syscall.Mmap(int(f.Fd()), 0, 8192, syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			panic(err)
		}
		f.Truncate(0)
		fmt.Fprintln(os.Stdout, b[5000])
	})
	register("fault-panic", one("panic", "runtime error: invalid memory address or nil pointer dereference"), func() {
		debug.SetPanicOnFault(true)
		fmt.Fprintln(os.Stdout, *(*int)(unsafe.Pointer(uintptr(0xdeadbeef000) + uintptr(zero))))
	})
	register("threads", one("fatal", "thread exhaustion"), func() {
		debug.SetMaxThreads(12)
		for i := 0; i < 30; i++ {
			go func() {
				runtime.LockOSThread()
				time.Sleep(time.Hour)
			}()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Hour)
	})
	register("out-of-memory", one("fatal", "runtime: cannot allocate memory|out of memory|runtime: out of memory|out of memory allocating heap arena metadata"), func() {
		lim := syscall.Rlimit{Cur: 1 << 31, Max: 1 << 31}
		syscall.Setrlimit(syscall.RLIMIT_AS, &lim)
		var keep [][]byte
		for {
			keep = append(keep, make([]byte, 64<<20))
		}
	})
	register("bad-pointer", one("fatal", "found bad pointer in Go heap (incorrect use of unsafe or cgo?)"), func() {
		keep := make([]unsafe.Pointer, 8)
		for {
			for i := range keep {
				*(*uintptr)(unsafe.Pointer(&keep[i])) = dangling()
			}
			runtime.GC()
			runtime.KeepAlive(keep)
		}
	})

	register("sigquit", one("signal", "SIGQUIT: quit"), signalSelf(syscall.SIGQUIT))
	register("sigabrt", one("signal", "SIGABRT: abort"), signalSelf(syscall.SIGABRT))
	register("sigsegv", one("signal", "SIGSEGV: segmentation violation"), signalSelf(syscall.SIGSEGV))
	register("sigtrap", one("signal", "SIGTRAP: trace trap"), signalSelf(syscall.SIGTRAP))
	register("sigill", one("signal", "SIGILL: illegal instruction"), signalSelf(syscall.SIGILL))
	register("sigfpe", one("signal", "SIGFPE: floating-point exception"), signalSelf(syscall.SIGFPE))
	register("sigsys", one("signal", "SIGSYS: bad system call"), signalSelf(syscall.SIGSYS))
	register("sigquit-busy", one("signal", "SIGQUIT: quit"), func() {
		runtime.GOMAXPROCS(4)
		for i := 0; i < 3; i++ {
			go func() {
				for {
					zero++
				}
			}()
		}
		time.Sleep(5 * time.Millisecond)
		signalSelf(syscall.SIGQUIT)()
	})
	register("sigquit-repeat", one("signal", "SIGQUIT: quit"), func() {
		crowd()
		syscall.Kill(os.Getpid(), syscall.SIGQUIT)
		syscall.Kill(os.Getpid(), syscall.SIGQUIT)
		time.Sleep(time.Hour)
	})
}
