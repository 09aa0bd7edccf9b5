// Package logfmt writes structured log lines: time, level, message, then key=value pairs. log/slog came with Go 1.21, later than the oldest release
// that the shop is built with.
package logfmt

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Logger writes each line with one Write call, so that lines of different goroutines never mix.
type Logger struct {
	mu  sync.Mutex
	out io.Writer
}

// New returns a Logger that writes to out.
func New(out io.Writer) *Logger { return &Logger{out: out} }

// Info logs what is worth knowing. The fields are alternating keys and values.
func (l *Logger) Info(message string, fields ...interface{}) { l.line("info", message, fields) }

// Error logs what somebody should look at.
func (l *Logger) Error(message string, fields ...interface{}) { l.line("error", message, fields) }

func (l *Logger) line(level, message string, fields []interface{}) {
	var b strings.Builder
	b.WriteString(time.Now().UTC().Format("time=2006-01-02T15:04:05.000Z "))
	b.WriteString("level=" + level + " msg=" + quote(message))
	for i := 0; i+1 < len(fields); i += 2 {
		fmt.Fprintf(&b, " %v=%s", fields[i], quote(fmt.Sprint(fields[i+1])))
	}
	b.WriteByte('\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	io.WriteString(l.out, b.String())
}

func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " =\"\n\t") {
		return strconv.Quote(s)
	}
	return s
}
