//go:build !cgo
// +build !cgo

package fault

const haveCgo = false

func cgoSegv() {}
