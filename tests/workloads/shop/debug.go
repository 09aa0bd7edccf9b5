package main

import (
	_ "expvar" // /debug/vars
	"net/http"
	"net/http/httputil"
	_ "net/http/pprof" // /debug/pprof/
	"os"
	"runtime"
	"sync"
)

// debugHandler serves what net/http/pprof and expvar registered. With a path it also writes down every request as it came in.
func debugHandler(recordPath string) (http.Handler, error) {
	runtime.SetMutexProfileFraction(5)
	runtime.SetBlockProfileRate(10_000)
	if recordPath == "" {
		return http.DefaultServeMux, nil
	}
	record, err := os.OpenFile(recordPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if dump, err := httputil.DumpRequest(r, true); err == nil {
			mu.Lock()
			record.Write(dump)
			mu.Unlock()
		}
		http.DefaultServeMux.ServeHTTP(w, r)
	}), nil
}
