# What every row shares: peers, processes, alternation, medians, the table.
#
# A row's file, rows/NAME.sh, is sourced in a shell of its own and sets
#   title       what is measured, for the table
#   unit        of the numbers that measure prints
#   better      higher or lower
#   contenders  an array; the first is ours, the others are the peers
#   goal        an array: what the ratio to each peer should be, as text
# and defines
#   prepare             installs, starts and checks everything; ends with fail if two contenders give different results
#   measure CONTENDER   prints one number
#   memory CONTENDER    prints the peak memory in KiB, or nothing
# A row that is measured otherwise defines only `title` and `custom`, which prints whole lines of the table.
# Processes started with `background` are stopped after the row.
# shellcheck shell=bash disable=SC2034,SC2154 # the row and run.sh set and read these

proxy_core=0
load_core=1
rounds=${ROUNDS:-5}

say() { printf '%s\n' "$*" >&2; }
fail() { say "bench: $*"; exit 1; }

# need COMMAND PACKAGE VERSION: installs a Debian package unless its command is there. VERSION may hold *.
need() {
    command -v "$1" >/dev/null && return
    say "bench: installing $2 $3 with apt-get"
    local sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$2=$3" >&2 || {
        say "bench: $2 $3 is not in this distribution; installing the version that is"
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$2" >&2
    }
}

pids=()

# background CORE COMMAND…: starts a process on one core; its number is then in $started.
background() {
    local core=$1
    shift
    taskset -c "$core" "$@" </dev/null >>"$work/log" 2>&1 &
    started=$!
    pids+=("$started")
}

stop_all() {
    local pid
    for pid in "${pids[@]:-}"; do
        [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]:-}"; do
        [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
    done
    pids=()
}

# wait_port PORT: until something listens there, at most 10 s.
wait_port() {
    local try
    for try in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    cat "$work/log" >&2
    fail "nothing listens on port $1"
}

# peak_kib PID: the most memory that a process and its children ever held.
peak_kib() {
    local pid sum=0 kib
    for pid in "$1" $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        kib=$(awk '/^VmHWM:/ { print $2 }' "/proc/$pid/status")
        sum=$((sum + kib))
    done
    echo "$sum"
}

median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# run_row NAME: measures and leaves lines of the table in $work/results.
run_row() (
    row=$1
    pids=()
    trap stop_all EXIT
    # shellcheck source=/dev/null # checked by itself
    . "$bench/rows/$row.sh"
    say "== $row: $title"
    if declare -F custom >/dev/null; then
        custom >"$work/$row.lines"
        say "$(sed 's/^/   /' "$work/$row.lines")"
        cat "$work/$row.lines" >>"$work/results"
        return
    fi
    prepare
    for round in $(seq "$rounds"); do
        for contender in "${contenders[@]}"; do
            number=$(measure "$contender")
            say "   round $round  $(printf '%-8s' "$contender") $number $unit"
            echo "$number" >>"$work/$row.$contender"
        done
    done
    ours=${contenders[0]}
    our_median=$(median <"$work/$row.$ours")
    our_memory=$(memory "$ours")
    for index in $(seq 1 $((${#contenders[@]} - 1))); do
        peer=${contenders[$index]}
        peer_median=$(median <"$work/$row.$peer")
        peer_memory=$(memory "$peer")
        line=$(awk -v row="$row" -v title="$title" -v unit="$unit" -v better="$better" -v peer="$peer" -v ours="$our_median" \
            -v theirs="$peer_median" -v goal="${goal[$((index - 1))]}" -v om="$our_memory" -v pm="$peer_memory" '
            function mib(kib) { return kib == "" ? "" : sprintf("%.1f MiB", kib / 1024) }
            BEGIN {
                ratio = better == "higher" ? ours / theirs : theirs / ours
                printf "| %s | %s | %.5g %s | %s %.5g %s | %.2f× | %s | %s | %s |\n",
                    row, title, ours, unit, peer, theirs, unit, ratio, goal, mib(om), mib(pm)
            }')
        say "   $line"
        echo "$line" >>"$work/results"
    done
)

# Replaces the lines of the rows that ran, between the markers of README.md, and keeps the others.
write_table() {
    local readme=$bench/README.md new=$work/readme
    awk -v results="$work/results" '
        BEGIN { while ((getline line < results) > 0) { split(line, cell, "|"); ran[cell[2]] = 1; fresh[++count] = line } }
        /<!-- table: end -->/ { for (i = 1; i <= count; i++) print fresh[i]; inside = 0 }
        inside && /^\| / { split($0, cell, "|"); if (cell[2] in ran) next }
        { print }
        /<!-- table: begin -->/ { inside = 1 }' "$readme" >"$new"
    cat "$new" >"$readme"
    say "bench: the table in tests/bench/README.md is written ($(nproc) cores, $(uname -m), Linux $(uname -r | cut -d- -f1))"
}
