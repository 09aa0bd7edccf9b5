//go:build cgo && !race

package main

/*
#include <stdlib.h>
static void segv(void) { *(volatile int *)8 = 1; }
static void trap(void) { __builtin_trap(); }
static int divide(int n) { volatile int zero = 0; return n / zero; }
extern void goCallback(void);
static void callback(void) { goCallback(); }
*/
import "C"
import "fmt"

//export goCallback
func goCallback() { panic("called back") }

// in is what a fault in C code is called: up to Go 1.18 a broken runtime.
func in(reason string) []string {
	if minor() <= 18 {
		return one("fatal", "unexpected signal during runtime execution")
	}
	return one("signal", reason)
}

func init() {
	register("cgo-segv", in("SIGSEGV: segmentation violation"), func() { crowd(); C.segv() })
	register("cgo-abort", one("signal", "SIGABRT: abort"), func() { crowd(); C.abort() })
	register("cgo-trap", one("signal", "SIGILL: illegal instruction"), func() { C.trap() })
	register("cgo-divide", in("SIGFPE: floating-point exception"), func() { fmt.Println(C.divide(1)) })
	register("cgo-callback", one("panic", "called back"), func() { C.callback() })
	register("cgo-free", one("signal", "SIGABRT: abort"), func() { p := C.malloc(8); C.free(p); C.free(p) })
}
