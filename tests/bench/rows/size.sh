# Size of the binary.

. "$bench/process.sh"

title=size

custom() { process_row size; }
