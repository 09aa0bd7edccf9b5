// Package work runs the shop's jobs: a pool of workers for what a request leaves behind, and jobs that come round on a clock.
package work

import (
	"context"
	"sync"
	"time"
)

// Pool runs jobs on a fixed number of goroutines.
type Pool struct {
	jobs    chan func()
	workers sync.WaitGroup
}

// NewPool starts n workers.
func NewPool(ctx context.Context, n int) *Pool {
	p := &Pool{jobs: make(chan func(), 64)}
	p.workers.Add(n)
	for i := 0; i < n; i++ {
		go p.worker(ctx)
	}
	return p
}

func (p *Pool) worker(ctx context.Context) {
	defer p.workers.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-p.jobs:
			job()
		}
	}
}

// Submit hands a job to a worker; false where the queue is full.
func (p *Pool) Submit(job func()) bool {
	select {
	case p.jobs <- job:
		return true
	default:
		return false
	}
}

// Wait returns when every worker has ended.
func (p *Pool) Wait() { p.workers.Wait() }

// Every runs job at each interval until ctx ends.
func Every(ctx context.Context, interval time.Duration, job func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			job()
		}
	}
}
