//go:build cgo
// +build cgo

package fault

/*
static int shop_read(volatile int *where) { return *where; }
static int shop_segv(void) { return shop_read((volatile int *)0); }
*/
import "C"

const haveCgo = true

func cgoSegv() { C.shop_segv() }
