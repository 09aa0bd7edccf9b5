# A static program of Go that ends at once: bare and under goscope exec.

. "$bench/process.sh"

title=start-delay

custom() { process_row start-delay; }
