package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

const goroutines = 10_000

// death is one run of the dying program, bare or under goscope exec.
type death struct {
	// From the moment before panic() until the process that we started is reaped and its stderr at its end.
	delay  time.Duration
	stderr []byte
	// Peak resident memory of the process that we started.
	peakKiB int
}

// crashDelay: how much later is a dying program gone when goscope stands between it and its stderr?
func (b *bench) crashDelay() ([]figure, error) {
	dying, err := b.build("dying")
	if err != nil {
		return nil, err
	}
	// A container runtime gives its containers a pipe and reads it, as is done here. Without that reader nothing but the kernel is between the bare
	// program and its file, which is the hardest peer there is.
	pipe, err := b.crashDelayInto(intoPipe, dying)
	if err != nil {
		return nil, err
	}
	file, err := b.crashDelayInto(intoFile, dying)
	return []figure{pipe, file}, err
}

// sink is what the stderr of the process that we start is.
type sink string

const (
	intoPipe sink = "pipe"
	intoFile sink = "file"
)

func (b *bench) crashDelayInto(into sink, dying string) (figure, error) {
	var lost, dumped int
	ours := func() (float64, error) {
		spool, err := os.MkdirTemp(b.dir, "spool-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(spool)
		d, err := b.die(into, false, b.goscope, "exec", "--spool", spool, "--", dying)
		if err != nil {
			return 0, err
		}
		missing, err := spooled(spool, d.stderr)
		lost += missing
		dumped = len(d.stderr)
		return d.delay.Seconds() * 1e3, err
	}
	peer := func() (float64, error) {
		d, err := b.die(into, false, dying)
		return d.delay.Seconds() * 1e3, err
	}
	o, p, err := alternate(b.runs, ours, peer)
	if err != nil {
		return figure{}, err
	}
	// A run of its own, because looking at a process delays it.
	spool, err := os.MkdirTemp(b.dir, "spool-")
	if err != nil {
		return figure{}, err
	}
	watched, err := b.die(into, true, b.goscope, "exec", "--spool", spool, "--", dying)
	if err != nil {
		return figure{}, err
	}
	f := figure{
		Row: fmt.Sprintf("crash-delay, stderr a %s", into), Unit: "ms", Goal: "+3 %, stretch +1 %, 0 bytes lost",
		PeakKiB: watched.peakKiB,
		Verified: fmt.Sprintf("status 2, %d stacks on stderr, spool equal to stderr (%.1f MB a run, %d bytes lost)",
			goroutines+1, float64(dumped)/1e6, lost),
	}.compare(o, p)
	f.Reached = lost == 0 && f.Ours <= f.Peer*1.03
	return f, nil
}

// die runs a command line that ends in the dying program and verifies that it died as it should.
func (b *bench) die(into sink, watch bool, command ...string) (death, error) {
	var d death
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return d, err
	}
	drained := make(chan error, 1)
	var file *os.File
	switch into {
	case intoPipe:
		stderr, err := cmd.StderrPipe()
		if err != nil {
			return d, err
		}
		go func() {
			var buf bytes.Buffer
			buf.Grow(32 << 20)
			_, err := io.Copy(&buf, stderr)
			d.stderr = buf.Bytes()
			drained <- err
		}()
	case intoFile:
		if file, err = os.Create(filepath.Join(b.dir, "stderr")); err != nil {
			return d, err
		}
		defer file.Close()
		cmd.Stderr = file
	}
	if err := cmd.Start(); err != nil {
		return d, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return d, fmt.Errorf("%s said nothing: %w", command[0], errors.Join(err, cmd.Process.Kill(), cmd.Wait()))
	}
	if watch {
		// Once the process is a zombie it has no memory to speak of, and the file none.
		for kib, err := memoryKiB(cmd.Process.Pid, "VmHWM"); err == nil; kib, err = memoryKiB(cmd.Process.Pid, "VmHWM") {
			d.peakKiB = kib
			time.Sleep(2 * time.Millisecond)
		}
	}
	if into == intoPipe {
		if err := <-drained; err != nil {
			return d, err
		}
	}
	waited := cmd.Wait()
	end := time.Now()

	if into == intoFile {
		if d.stderr, err = os.ReadFile(file.Name()); err != nil {
			return d, err
		}
	}
	began, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return d, err
	}
	d.delay = end.Sub(time.Unix(0, began))
	var exit *exec.ExitError
	if !errors.As(waited, &exit) || exit.ExitCode() != 2 {
		return d, fmt.Errorf("%s ended with %v, not with status 2", command[0], waited)
	}
	if stacks := bytes.Count(d.stderr, []byte("\n\ngoroutine ")); stacks != goroutines+1 {
		return d, fmt.Errorf("%s left %d stacks, not %d", command[0], stacks, goroutines+1)
	}
	return d, nil
}

// spooled compares the only run in a spool with what came out on stderr, and says how many bytes of that are missing.
func spooled(spool string, stderr []byte) (missing int, err error) {
	segments, err := filepath.Glob(filepath.Join(spool, "*", "stderr.*"))
	if err != nil {
		return 0, err
	}
	sort.Strings(segments)
	var kept []byte
	for _, segment := range segments {
		content, err := os.ReadFile(segment)
		if err != nil {
			return 0, err
		}
		kept = append(kept, content...)
	}
	records, err := filepath.Glob(filepath.Join(spool, "*", "exit.json"))
	if err != nil || len(records) != 1 {
		return 0, fmt.Errorf("%d exit records in the spool: %w", len(records), err)
	}
	text, err := os.ReadFile(records[0])
	if err != nil {
		return 0, err
	}
	var record struct {
		StderrBytes    int `json:"stderr_bytes"`
		UnspooledBytes int `json:"unspooled_bytes"`
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return 0, err
	}
	missing = record.UnspooledBytes + record.StderrBytes - len(stderr)
	if record.UnspooledBytes == 0 && !bytes.Equal(kept, stderr) {
		return missing, fmt.Errorf("the spool's %d bytes are not the %d bytes of stderr", len(kept), len(stderr))
	}
	return missing, nil
}

// startDelay: how much later does a static Go program say its first word?
func (b *bench) startDelay() ([]figure, error) {
	starting, err := b.build("starting")
	if err != nil {
		return nil, err
	}
	ours := func() (float64, error) {
		spool, err := os.MkdirTemp(b.dir, "spool-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(spool)
		return start(b.goscope, "exec", "--spool", spool, "--", starting)
	}
	peer := func() (float64, error) { return start(starting) }
	// These runs are short and their spread is large: many of them.
	o, p, err := alternate(b.runs*9, ours, peer)
	if err != nil {
		return nil, err
	}
	f := figure{
		Row: "start-delay", Unit: "ms", Goal: "+10 ms", Verified: "the program's line on stdout, status 0",
	}.compare(o, p)
	f.Reached = f.Ours-f.Peer <= 10
	return []figure{f}, nil
}

// start is the time in milliseconds until the first line on stdout.
func start(command ...string) (float64, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	took := time.Since(began)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return 0, err
	}
	if line != "started\n" {
		return 0, fmt.Errorf("%s said %q", command[0], line)
	}
	return took.Seconds() * 1e3, nil
}
