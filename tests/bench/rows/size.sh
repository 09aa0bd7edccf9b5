# Size of the binary.
# shellcheck shell=bash disable=SC2034,SC2154 # what lib.sh says is set here and there

# shellcheck source=tests/bench/process.sh
. "$bench/process.sh"

title=size

custom() { process_row size; }
