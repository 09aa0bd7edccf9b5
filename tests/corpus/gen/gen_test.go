package main

import (
	"testing"
	"time"
)

// The test binary's own death: go test's time-out has a value of several lines.
func TestSlow(t *testing.T) { time.Sleep(time.Hour) }

func TestBroken(t *testing.T) {
	var p *thing
	p.b++
}
