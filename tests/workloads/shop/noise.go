package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// noise writes a stream that a test can make again byte for byte:
//
//	random:N     N bytes of a xorshift64* generator with seed 1, of each value the high byte
//	lines:N      N log lines "seq=0 …" to "seq=N-1 …", many to a write
//	steady:D     such lines, one to a write, one each duration D, for ever
func noise(out io.Writer, spec string) error {
	kind, amount, _ := strings.Cut(spec, ":")
	switch kind {
	case "random":
		n, err := strconv.Atoi(amount)
		if err != nil {
			return err
		}
		_, err = out.Write(randomBytes(n))
		return err
	case "lines":
		n, err := strconv.Atoi(amount)
		if err != nil {
			return err
		}
		buffered := bufio.NewWriterSize(out, 16<<10)
		for i := 0; i < n; i++ {
			noiseLine(buffered, i)
		}
		return buffered.Flush()
	case "steady":
		interval, err := time.ParseDuration(amount)
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			noiseLine(out, i)
			time.Sleep(interval)
		}
	}
	return fmt.Errorf("unknown noise %q", spec)
}

func noiseLine(out io.Writer, i int) {
	fmt.Fprintf(out, "seq=%d level=info msg=\"order booked\" customer=c%d sku=sku-%04d cents=%d\n", i, i%97, i%311, 199+i%9000)
}

func randomBytes(n int) []byte {
	state := uint64(1)
	body := make([]byte, n)
	for i := range body {
		state ^= state >> 12
		state ^= state << 25
		state ^= state >> 27
		body[i] = byte(state * 0x2545F4914F6CDD1D >> 56)
	}
	return body
}
