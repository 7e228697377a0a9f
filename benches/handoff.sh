#!/usr/bin/env bash
# What the locks cost beside flock(1): how soon the command that waits ends when the lock becomes free (handoff.c), and what
# taking and giving back cost, in an empty root and beside 10,000 other locks (race.c). Interleaved, medians.
#
#     benches/handoff.sh [BINARY]       ROUNDS=100 OTHERS=10000
#
# BINARY is target/release/pipeline-state by default. Everything is done in a new directory inside the current one. It judges
# no time: machines are noisy. It fails where a command fails.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-target/release/pipeline-state}")
rounds=${ROUNDS:-100}
others=${OTHERS:-10000}

for tool in gcc flock "$binary"; do
    command -v "$tool" >/dev/null || { printf 'handoff.sh: %s is missing\n' "$tool" >&2; exit 5; }
done

# Nothing of the caller's may choose another root or owner.
unset PIPELINE_ROOT STATE_FILE PIPELINE_FORMAT PIPELINE_OWNER_PID PIPELINE_LOCK_TOKEN LOCK_TIMEOUT DEBUG

work=$(mktemp -d ./handoff-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
work=$(realpath "$work")
cd "$work"
export AUDIT_LOG=audit.log

gcc -O2 -o race "$here/race.c"
gcc -O2 -o handoff "$here/handoff.c"
flock=$(type -P flock) true=$(type -P true)

# The names of all other locks, at most 64 of which are taken at once.
mkdir hands empty used held
seq -f 'other-%.0f' "$others" | paste -sd, | sed 's/\(\([^,]*,\)\{63\}[^,]*\),/\1\n/g' >names
while read -r names; do
    "$binary" -q --root used lock acquire "$names" --owner-pid $$
    "$binary" -q --root used lock release "$names" --owner-pid $$
    "$binary" -q --root held lock acquire "$names" --owner-pid $$
done <names

printf '%s rounds, file system %s, %s processors, load %s\n' "$rounds" "$(stat -f -c %T .)" "$(nproc)" \
    "$(cut -d ' ' -f 1-3 /proc/loadavg)"
./handoff "$rounds" "$binary" hands "$flock"
printf '\n'
commands=(-- 'flock FILE true, twice' - - "$flock" file "$true" ';' "$flock" file "$true")
add() { # NAME BASE LIMIT ROOT
    commands+=(-- "$1" "$2" "$3" "$binary" --root "$4" lock acquire a ';' "$binary" --root "$4" lock release a)
}
add 'acquire and release' 'flock FILE true, twice' 2 empty
add "the same, $others used before" 'acquire and release' 1.1 used
add "the same, $others held" 'acquire and release' 1.1 held
./race "$((rounds * 3))" "${commands[@]}"
printf 'load afterwards %s\n' "$(cut -d ' ' -f 1 /proc/loadavg)"
