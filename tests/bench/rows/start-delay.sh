# A static program of Go that ends at once: bare and under goscope exec.
# shellcheck shell=bash disable=SC2034,SC2154 # what lib.sh says is set here and there

# shellcheck source=tests/bench/process.sh
. "$bench/process.sh"

title=start-delay

custom() { process_row start-delay; }
