package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bodyBytes = 64 << 20
	idleFor   = 30 * time.Second
	busyFor   = 10 * time.Second
	// Clients that are refused while bodies are streamed.
	refused = 4
)

// memory: how much does the agent hold, idle and at work? Beside a plain agent runs only the target, which is this process.
func (b *bench) memory() ([]figure, error) {
	target, err := serveTarget()
	if err != nil {
		return nil, err
	}
	defer target.Close()
	agent, err := b.startAgent(target.Addr().String())
	if err != nil {
		return nil, err
	}
	defer agent.stop()

	fmt.Fprintf(os.Stderr, "memory: idle for %s\n", idleFor)
	time.Sleep(idleFor)
	idle, err := memoryKiB(agent.pid(), "VmRSS")
	if err != nil {
		return nil, err
	}
	idlePeak, err := memoryKiB(agent.pid(), "VmHWM")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "memory: busy for %s\n", busyFor)
	bodies, refusals, err := agent.busy()
	if err != nil {
		return nil, err
	}
	busy, err := memoryKiB(agent.pid(), "VmHWM")
	if err != nil {
		return nil, err
	}
	return []figure{
		{
			Row: "memory idle", Unit: "MiB", Ours: float64(idle) / 1024, PeakKiB: idlePeak, Goal: "8, stretch 4",
			Reached: idle <= 8<<10, Verified: "target sampled, ready", Runs: 1,
		},
		{
			Row: "memory busy", Unit: "MiB", Ours: float64(busy) / 1024, PeakKiB: busy, Goal: "24, stretch 12",
			Reached:  busy <= 24<<10,
			Verified: fmt.Sprintf("%d whole bodies of 64 MiB, %d refusals beside them", bodies, refusals), Runs: 1,
		},
	}, nil
}

// serveTarget is a Go program with pprof whose heap profile is 64 MiB of zeros.
func serveTarget() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	block := make([]byte, 64<<10)
	mux.HandleFunc("/debug/pprof/heap", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		for sent := 0; sent < bodyBytes; sent += len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	go http.Serve(listener, mux)
	return listener, nil
}

// agent is a running goscope agent.
type agent struct {
	cmd            *exec.Cmd
	debug, metrics string
	token          string
}

func (a *agent) pid() int { return a.cmd.Process.Pid }

func (a *agent) stop() {
	_ = a.cmd.Process.Signal(os.Interrupt)
	_ = a.cmd.Wait()
}

// startAgent makes a token and a configuration, and waits until the agent is ready and has seen the target.
func (b *bench) startAgent(target string) (*agent, error) {
	maker := exec.Command(b.goscope, "token", "new", "--name", "bench", "--tier", "basic")
	out, err := maker.Output()
	if err != nil {
		return nil, fmt.Errorf("goscope token new: %w", err)
	}
	a := &agent{token: strings.TrimSpace(string(out))}
	if a.debug, err = freeAddress(); err != nil {
		return nil, err
	}
	if a.metrics, err = freeAddress(); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(b.dir, name) }
	hash := sha256.Sum256([]byte(a.token))
	tokens := fmt.Sprintf("tokens: [{ name: bench, sha256: %q, tiers: [basic] }]\n", hex.EncodeToString(hash[:]))
	config := fmt.Sprintf(`target: { address: %q }
listen: { debug: %q, metrics: %q }
gate:
  tokens: { files: [%q] }
  limits:
    perSource: { rate: 1000/s, burst: 1000, nodelay: true }
    perIdentity: { rate: 1000/s, burst: 1000, nodelay: true }
intake: { spool: %q }
store: { path: %q }
`, target, a.debug, a.metrics, file("tokens.yaml"), file("spool"), file("data"))
	if err := errors.Join(
		os.WriteFile(file("tokens.yaml"), []byte(tokens), 0o600),
		os.WriteFile(file("config.yaml"), []byte(config), 0o600),
		os.Mkdir(file("spool"), 0o700),
		os.Mkdir(file("data"), 0o700),
	); err != nil {
		return nil, err
	}
	a.cmd = exec.Command(b.goscope, "agent", "--config", file("config.yaml"))
	a.cmd.Stderr = os.Stderr
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		ready, _ := get("http://"+a.metrics+"/readyz", "")
		series, _ := get("http://"+a.metrics+"/metrics", "")
		if ready.status == http.StatusOK && strings.Contains(series.text, "\ngoscope_target_up 1\n") {
			return a, nil
		}
		if time.Now().After(deadline) {
			a.stop()
			return nil, fmt.Errorf("the agent is not ready: %s", ready.text)
		}
	}
}

// busy streams bodies for a while and has as many requests as possible refused meanwhile.
func (a *agent) busy() (bodies, refusals int, err error) {
	url := "http://" + a.debug + "/debug/pprof/heap"
	end := time.Now().Add(busyFor)
	var counted atomic.Int64
	failures := make(chan error, refused)
	var clients sync.WaitGroup
	for i := 0; i < refused; i++ {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for time.Now().Before(end) {
				answer, err := get(url, "gsc_wrong")
				if err != nil || (answer.status != http.StatusUnauthorized && answer.status != http.StatusTooManyRequests) {
					failures <- fmt.Errorf("a wrong token got %d: %w", answer.status, err)
					return
				}
				counted.Add(1)
			}
		}()
	}
	for time.Now().Before(end) && err == nil {
		var answer answer
		answer, err = get(url, a.token)
		switch {
		case err != nil:
		case answer.status == http.StatusTooManyRequests:
			// The refused ones use up the address's share; that is what they are here for.
			time.Sleep(5 * time.Millisecond)
		case answer.status != http.StatusOK || answer.bytes != bodyBytes:
			err = fmt.Errorf("a body of %d bytes came with status %d", answer.bytes, answer.status)
		default:
			bodies++
		}
	}
	clients.Wait()
	select {
	case failure := <-failures:
		err = errors.Join(err, failure)
	default:
	}
	if err == nil && bodies == 0 {
		err = errors.New("not one body came through")
	}
	return bodies, int(counted.Load()), err
}

type answer struct {
	status int
	bytes  int64
	// The first part of the body.
	text string
}

func get(url, token string) (answer, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	head, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return answer{}, err
	}
	rest, err := io.Copy(io.Discard, response.Body)
	return answer{response.StatusCode, int64(len(head)) + rest, string(head)}, err
}

// freeAddress is a port of the loopback that nobody had a moment ago.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// memoryKiB reads one size from /proc/PID/status.
func memoryKiB(pid int, name string) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(value, "kB")))
		}
	}
	return 0, fmt.Errorf("%s has no %s", fmt.Sprintf("/proc/%d/status", pid), name)
}
