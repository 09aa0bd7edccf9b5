#!/usr/bin/env bash
# Measures goscope against its peers: ./tests/bench/run.sh [ROW…]
#
# Ours and theirs run alternately on the same input, must give the same result, and are compared by the median of ROUNDS rounds (5). The table
# in README.md is written anew for the rows that ran. A row is a file in rows/; lib.sh says what it holds.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
bench=$root/tests/bench
# shellcheck source=tests/bench/lib.sh
. "$bench/lib.sh"

rows=("$@")
if [ ${#rows[@]} -eq 0 ]; then
    for file in "$bench"/rows/*.sh; do
        rows+=("$(basename "$file" .sh)")
    done
fi
for row in "${rows[@]}"; do
    [ -f "$bench/rows/$row.sh" ] || fail "no row $row; there are: $(cd "$bench/rows" && echo *.sh | sed 's/\.sh//g')"
done

work=$(mktemp -d)
trap 'stop_all; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# Peers drop their rights and must still be able to read their files.
chmod 755 "$work"
for row in "${rows[@]}"; do
    run_row "$row"
done
write_table
