package main

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// listen opens a TCP address (host:port) or a unix socket (unix:///path). A socket file left by a dead process is replaced.
func listen(address string) (net.Listener, error) {
	path := strings.TrimPrefix(address, "unix://")
	if path == address {
		return net.Listen("tcp", address)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return net.Listen("unix", path)
}

func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return l.Addr().String()
}

// announce writes the addresses to a file, whole or not at all, so that whoever waits for the file can read it at once.
func announce(path string, shop, debug net.Listener) error {
	text := fmt.Sprintf("pid=%d\nshop=%s\ndebug=%s\n", os.Getpid(), addressOf(shop), addressOf(debug))
	if err := os.WriteFile(path+".tmp", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
