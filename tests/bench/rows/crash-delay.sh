# A dying app with a panic of 10,000 goroutines: from its start to its end, bare and under goscope exec.

. "$bench/process.sh"

title=crash-delay

custom() { process_row crash-delay; }
