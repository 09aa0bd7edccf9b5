module goscope.dev/bench/process

go 1.21
