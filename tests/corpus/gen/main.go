// Gen dies, or raises an alarm, in one of many ways, so that what real Go releases print can be recorded.
//
//	gen KIND            dies so
//	gen -expect KIND    prints what a parser must find: kind TAB reason, one line for each incident ("-" for none)
//	gen -kinds          lists the kinds that this build has
//
// It builds with Go 1.18 and later. Addresses in an expected reason are written 0xHEX.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
)

// A death is one way to fail. Several expectations stand for several incidents.
type death struct {
	run    func()
	expect []string
}

func one(kind, reason string) []string { return []string{kind + "\t" + reason} }

var deaths = map[string]death{}

func register(name string, expect []string, run func()) {
	if _, dup := deaths[name]; dup {
		panic("registered twice: " + name)
	}
	deaths[name] = death{run, expect}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-kinds" {
		var names []string
		for name := range deaths {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Println(strings.Join(names, "\n"))
		return
	}
	name := os.Args[len(os.Args)-1]
	d, ok := deaths[name]
	if !ok {
		fmt.Println("unknown kind", name)
		os.Exit(64)
	}
	if os.Args[1] == "-expect" {
		for _, e := range d.expect {
			fmt.Println(e)
		}
		return
	}
	d.run()
}

// minor is N of the Go release go1.N that built this program.
func minor() int {
	v := strings.TrimPrefix(runtime.Version(), "go1.")
	if i := strings.IndexByte(v, '.'); i >= 0 {
		v = v[:i]
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 99
	}
	return n
}

func since(release int, newer, older string) string {
	if minor() >= release {
		return newer
	}
	return older
}
