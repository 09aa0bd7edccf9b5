# A dying app with a panic of 10,000 goroutines: from its start to its end, bare and under goscope exec.
# shellcheck shell=bash disable=SC2034,SC2154 # what lib.sh says is set here and there

# shellcheck source=tests/bench/process.sh
. "$bench/process.sh"

title=crash-delay

custom() { process_row crash-delay; }
