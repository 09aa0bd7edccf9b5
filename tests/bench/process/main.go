// Command process measures what goscope costs as a process: the rows crash-delay, start-delay, memory and size of the benchmark table.
//
// The peer of a delay is the same program run bare, in turns with ours. Each run's result is verified; a wrong one ends the measurement. For each row
// one JSON object per figure goes to standard output; standard error tells what is going on.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// figure is one line of the table.
type figure struct {
	Row  string `json:"row"`
	Unit string `json:"unit"`
	// Median of the runs; Low and High are the extremes.
	Ours float64 `json:"ours"`
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
	// The same for the bare program, where there is one.
	Peer     float64 `json:"peer,omitempty"`
	PeerLow  float64 `json:"peer_low,omitempty"`
	PeerHigh float64 `json:"peer_high,omitempty"`
	// Peak resident memory of our process in KiB, where it was looked at.
	PeakKiB int `json:"peak_kib,omitempty"`
	// Goal as published, and whether these figures reach it.
	Goal    string `json:"goal"`
	Reached bool   `json:"reached"`
	// What was verified.
	Verified string `json:"verified"`
	Runs     int    `json:"runs"`
}

// bench is what all rows share.
type bench struct {
	goscope string
	runs    int
	// A folder that is removed at the end.
	dir string
}

var rows = map[string]func(*bench) ([]figure, error){
	"crash-delay": (*bench).crashDelay,
	"start-delay": (*bench).startDelay,
	"memory":      (*bench).memory,
	"size":        (*bench).size,
}

func main() {
	goscope := flag.String("goscope", "", "the goscope binary, a release build")
	runs := flag.Int("runs", 11, "runs of each side")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: process -goscope FILE [-runs N] crash-delay|start-delay|memory|size …")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *goscope == "" || flag.NArg() == 0 || *runs < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*goscope, *runs, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "process:", err)
		os.Exit(1)
	}
}

func run(goscope string, runs int, names []string) error {
	goscope, err := filepath.Abs(goscope)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "goscope-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{goscope: goscope, runs: runs, dir: dir}
	out := json.NewEncoder(os.Stdout)
	for _, name := range names {
		row, known := rows[name]
		if !known {
			return fmt.Errorf("there is no row %s", name)
		}
		figures, err := row(b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, figure := range figures {
			if err := out.Encode(figure); err != nil {
				return err
			}
		}
	}
	return nil
}

// build compiles one of the small programs beside this one, without cgo, so that it is static.
func (b *bench) build(name string) (string, error) {
	file := filepath.Join(b.dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return file, cmd.Run()
}

func (b *bench) size() ([]figure, error) {
	info, err := os.Stat(b.goscope)
	if err != nil {
		return nil, err
	}
	mb := float64(info.Size()) / 1e6
	return []figure{{
		Row: "size", Unit: "MB", Ours: mb, Goal: "15, aim 8", Reached: mb <= 15, Verified: "size of the file", Runs: 1,
	}}, nil
}
