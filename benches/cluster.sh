#!/usr/bin/env bash
# How fast it is on an etcd cluster, beside the smallest program with the same requests and beside etcdctl: see README.md here.
#
#     benches/cluster.sh [MEMBERS]       ROUNDS=150 BINARY=… FLOOR=… (built with the feature `etcd`, and benches/floor.rs)
#
# It starts etcd with one member, or with as many as MEMBERS says, on loopback; their data is in a new directory inside the
# current one. Everything else is as in run.sh. Both programs are built first unless they are named.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
members=${1:-1}
rounds=${ROUNDS:-150}
unset PIPELINE_ROOT STATE_FILE STATE_MAX_BACKUPS STATE_BACKUP_DAYS PIPELINE_FORMAT PIPELINE_OWNER_PID PIPELINE_LOCK_TOKEN \
    LOCK_TIMEOUT DEBUG "${!ETCDCTL_@}"
target=${CARGO_TARGET_DIR:-$here/../target}
if [ -z "${BINARY:-}" ] || [ -z "${FLOOR:-}" ]; then
    (cd "$here/.." && cargo build --profile dist --features etcd --bin pipeline-state --example floor)
    BINARY=$target/dist/pipeline-state FLOOR=$target/dist/examples/floor
fi
for tool in gcc curl etcd etcdctl "$BINARY" "$FLOOR"; do
    command -v "$tool" >/dev/null || { printf 'cluster.sh: %s is missing\n' "$tool" >&2; exit 5; }
done
binary=$(realpath "$BINARY") floor=$(realpath "$FLOOR")

work=$(mktemp -d ./bench.XXXXXX)
work=$(realpath "$work")
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
cp "$binary" pipeline-state && cp "$floor" floor && binary=./pipeline-state
mkdir home && export HOME=$work/home AUDIT_LOG=$work/audit.log SUMMARY=$work/summary.tsv CURVES=$work/curves.tsv ETCDCTL_API=3
for program in race crowd; do gcc -O2 -o "$program" "$here/$program.c"; done

base=$((20000 + RANDOM % 20000))
cluster='' hosts=''
for ((i = 0; i < members; i++)); do
    cluster+=${cluster:+,}m$i=http://127.0.0.1:$((base + 2 * i + 1))
    hosts+=${hosts:+,}127.0.0.1:$((base + 2 * i))
done
for ((i = 0; i < members; i++)); do
    client=http://127.0.0.1:$((base + 2 * i)) peer=http://127.0.0.1:$((base + 2 * i + 1))
    etcd --name m$i --data-dir data$i --listen-client-urls $client --advertise-client-urls $client \
        --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster "$cluster" >etcd$i.log 2>&1 &
    pids+=($!)
done
until etcdctl --endpoints "$hosts" endpoint health >/dev/null 2>&1; do sleep 0.1; done

url=etcd://$hosts
store=$url/bench
export PIPELINE_STORE=$store
"$binary" -q state init
# The sum of a figure of all members.
metric() {
    local i
    for ((i = 0; i < members; i++)); do curl -s "http://127.0.0.1:$((base + 2 * i))/metrics"; done |
        awk -v name="$1" '$1 == name { sum += $2 } END { printf "%d", sum }'
}
size() { etcdctl --endpoints "$hosts" endpoint status -w json | grep -o '"dbSize":[0-9]*' | head -1 | cut -d: -f2; }

commands=()
add() { commands+=(-- "$@"); }
race() {
    printf '\n'
    ./race "$1" "${commands[@]}"
    commands=()
}
title() { printf '## %s\n' "$1" >>"$SUMMARY"; }

title "One process at a time, $members member(s)"
before=$(size)
add 'floor get' - - ./floor get "$url/floor"
add 'state get' 'floor get' 1.4 "$binary" state get .phase
add 'floor set' - - ./floor set "$url/floor" x@
add 'state set' 'floor set' 1.4 "$binary" state set phase=x@
add 'etcdctl get' - - "$(type -P etcdctl)" --endpoints "$hosts" get /bench/state
race "$rounds"
printf '\n%s bytes of database for each of %s pairs of commits\n' $((($(size) - before) / rounds)) "$rounds"
add 'etcdctl lock NAME true' - - "$(type -P etcdctl)" --endpoints "$hosts" lock hot "$(type -P true)"
add 'lock acquire and release' 'etcdctl lock NAME true' 0.6 "$binary" lock acquire hot ';' "$binary" lock release hot
race "$((rounds / 3 + 1))"

for count in 1 8 32; do
    title "$count writers"
    ./crowd $count $((96 / count + 1)) 3 "$count updating" - "$([ $count = 32 ] && echo '<= 3' || echo -)" 'state update' 'floor set' \
        "$binary" --lock-timeout 10m state update '.n = (.n // 0) + 1' -- ./floor set "$url/floor" x
done
for count in 1 32; do
    title "$count owners"
    ./crowd $count $((64 / count)) 3 "$count taking a lock" - - 'lock' 'etcdctl lock' \
        "$binary" lock acquire hot 10m ';' "$binary" lock release hot -- "$(type -P etcdctl)" --endpoints "$hosts" lock hot "$(type -P true)"
done

# A hundred waiters: from the first one's start until the last one is in the queue, and from the release until the next has it.
bash -c '"$0" -q lock acquire gate && echo held && cat >/dev/null' "$binary" < <(sleep 600) >held &
holder=$!
until [ -s held ]; do sleep 0.01; done
begun=$(date +%s%N)
for ((i = 0; i < 100; i++)); do "$binary" -q lock acquire gate 10m --owner-pid $$ 2>/dev/null >/dev/null & waiters[i]=$!; done
until [ "$("$binary" --json lock status | grep -o '"waiting":[0-9]*' | cut -d: -f2)" = 100 ]; do :; done
printf '\n100 waiters are in the queue after %s ms\n' $((($(date +%s%N) - begun) / 1000000))
kill "${waiters[@]}" $holder 2>/dev/null || true
wait "${waiters[@]}" 2>/dev/null || true

# A hundred watchers of the document: from the commit until the last has seen it and ended.
"$binary" -q set gate=closed
for ((i = 0; i < 100; i++)); do "$binary" -q state wait '.gate == "open"' & watchers[i]=$!; done
until [ "$(metric etcd_debugging_mvcc_watcher_total)" -ge 100 ]; do sleep 0.1; done
begun=$(date +%s%N)
"$binary" -q set gate=open
wait "${watchers[@]}"
printf '\n100 watchers have seen a commit after %s ms; etcd takes %s MiB\n' $((($(date +%s%N) - begun) / 1000000)) \
    $(($(metric process_resident_memory_bytes) / members / 1048576))

printf '\n'
cat "$SUMMARY"
