#!/usr/bin/env bash
# How much a durable `state set` costs beside a C program that makes the same calls (commit.c), and how much reading
# costs beside `cat`: whole processes, interleaved (race.c), medians.
#
#     benches/commit.sh [BINARY [STATIC-BINARY]]       ROUNDS=300 BYTES=1024
#
# BINARY is target/release/pipeline-state by default. STATIC-BINARY, a statically linked build of the same, is compared
# with a statically linked commit.c; without one that row is missing. Everything is done in a new directory inside the
# current one, so run it where the disk is that you want to know about. It judges no time: machines are noisy. It fails
# where a command fails or did not commit what it should have.
#
# On a busy machine all rows wait for the same disk and processors, and their ratios shrink towards 1: a target that is
# met there is not met. The columns min and cpu suffer least.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-target/release/pipeline-state}")
static=${2:+$(realpath "$2")}
rounds=${ROUNDS:-300}
size=${BYTES:-1024}

for tool in gcc "$binary" ${static:+"$static"}; do
    command -v "$tool" >/dev/null || { printf 'commit.sh: %s is missing\n' "$tool" >&2; exit 5; }
done

# Nothing of the caller's may choose another state.
unset PIPELINE_ROOT STATE_FILE STATE_MAX_BACKUPS STATE_BACKUP_DAYS STATE_FOREIGN_EDITS PIPELINE_AUTO_RECOVER \
    PIPELINE_FORMAT LOCK_TIMEOUT DEBUG

work=$(mktemp -d ./commit-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
work=$(realpath "$work")
cd "$work" # from here on all paths are relative, so that none can hold the runner's `@`
export AUDIT_LOG=audit.log

gcc -O2 -o race "$here/race.c"
gcc -O2 -o commit-dynamic "$here/commit.c"
statically=yes
gcc -O2 -static -o commit-static "$here/commit.c" 2>/dev/null || statically=

# One document of the wanted size, and for each writer a root of its own that starts with it.
"$binary" --root . -q state init
have=$(stat -c %s .workflow-state.json)
fill=$((size - have - 13)) # 13: `,\n  "note": ""`
[ "$fill" -lt 1 ] || "$binary" --root . -q state set note="$(printf "%${fill}s" | tr ' ' x)"
for _ in 1 2 3 4 5; do "$binary" --root . -q state set phase="$RANDOM$RANDOM"; done # as many backups as are kept
mkdir first && mv .workflow-state.json .state-backups .locks .checkpoints .signals first/
new_root() { cp -a first "$1"; }

commands=()
add() { commands+=(-- "$@"); }
writers=()

c_dynamic='C, dynamic'
new_root c-dynamic
add "$c_dynamic" - - ./commit-dynamic c-dynamic x@
new_root set
add 'pipeline-state state set' "$c_dynamic" 1.4 "$binary" --root set state set phase=x@
new_root update
add 'pipeline-state state update (jq)' "$c_dynamic" 1.8 "$binary" --root update state update '.n = @'
writers+=(c-dynamic set update)
if [ -n "$statically" ]; then
    new_root c-static
    add 'C, static' "$c_dynamic" - ./commit-static c-static x@
    writers+=(c-static)
    if [ -n "$static" ]; then
        new_root set-static
        add 'pipeline-state state set, static' 'C, static' 1.4 "$static" --root set-static state set phase=x@
        new_root update-static
        add 'pipeline-state state update, static' 'C, static' 1.8 "$static" --root update-static state update '.n = @'
        writers+=(set-static update-static)
    fi
fi
if command -v jq >/dev/null && command -v flock >/dev/null; then
    # What scripts do today: no fsync, no backup, no mirror, no log.
    cat >lock-jq-mv.sh <<'SCRIPT'
{ flock 9 && jq --argjson n "$2" '.n = $n' "$1/state.json" >"$1/state.tmp" && mv "$1/state.tmp" "$1/state.json"; } 9>"$1/lock"
SCRIPT
    mkdir script && cp first/.workflow-state.json script/state.json
    add 'flock; jq; mv (not durable)' "$c_dynamic" - "$(type -P sh)" lock-jq-mv.sh script @
fi

state=first/.workflow-state.json
add 'cat' - - "$(type -P cat)" "$state"
add 'pipeline-state state read' cat 1.3 "$binary" --root first state read
add 'pipeline-state state get .phase' cat 1.4 "$binary" --root first state get .phase
[ -z "$static" ] || add 'pipeline-state state read, static' cat 1.3 "$static" --root first state read
[ -z "$static" ] || add 'pipeline-state state get, static' cat 1.4 "$static" --root first state get .phase
! command -v jq >/dev/null || add 'jq .phase' cat - "$(type -P jq)" .phase "$state"
add 'true' cat - "$(type -P true)"
add 'pipeline-state --version' cat - "$binary" --version

printf '%s rounds, %s bytes, file system %s (%s), %s processors, load %s\n' "$rounds" "$(stat -c %s "$state")" \
    "$(stat -f -c %T .)" "$(df --output=fstype . | tail -n 1)" "$(nproc)" "$(cut -d ' ' -f 1-3 /proc/loadavg)"
./race "$rounds" "${commands[@]}"
load=$(cut -d ' ' -f 1 /proc/loadavg)
printf 'load afterwards %s%s\n' "$load" "$([ "${load%.*}" -lt 1 ] || echo ': a busy machine, which flatters the ratios; compare min and cpu')"

# Every round, the uncounted ones too, was one revision in each writer's root; otherwise the table is about nothing.
revision_of() { sed -n 's/^ *"revision": \([0-9]*\).*/\1/p' "$1/.workflow-state.json"; }
wanted=$(($(revision_of first) + rounds + (rounds + 9) / 10))
for root in "${writers[@]}"; do
    [ "$(revision_of "$root")" = "$wanted" ] && cmp -s "$root/.workflow-state.json" "$root/.state-backups/mirror.json" || {
        printf 'commit.sh: %s is at revision %s, not %s, or its mirror is not\n' "$root" "$(revision_of "$root")" "$wanted" >&2
        exit 1
    }
done
