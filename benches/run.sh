#!/usr/bin/env bash
# How fast it is, beside the programs that do a part of the same: see README.md here.
#
#     benches/run.sh [SECTION…]       ROUNDS=150 BINARY=… STATIC=… (a statically linked build; `STATIC=` for none)
#
# SECTIONs are read, write, lock, crowd, slow, hook, large and growth; all of them by default. The program is built first
# unless BINARY says which. CURVES=FILE keeps the points of the crowds, which plot.py draws. Everything is done in a new directory inside the current one, so run it where the disk is that you want to know
# about. It judges no time: machines are noisy. It fails where a command fails or did not commit what it should have.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
rounds=${ROUNDS:-150}
few=$(((rounds + 9) / 10))
sections=${*:-read write lock crowd slow hook large growth}

# Nothing of the caller's may choose another state or another owner.
unset PIPELINE_ROOT STATE_FILE STATE_MAX_BACKUPS STATE_BACKUP_DAYS STATE_FOREIGN_EDITS PIPELINE_AUTO_RECOVER \
    PIPELINE_FORMAT PIPELINE_OWNER_PID PIPELINE_LOCK_TOKEN LOCK_TIMEOUT DEBUG

# A static build needs nothing but the musl target; where that is missing, glibc can be linked statically, too.
target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$here/../target}"; }
built() { realpath "$(target_dir)/$1"; }
if [ -z "${BINARY:-}" ]; then
    (cd "$here/.." && cargo build --profile dist)
    BINARY=$(built dist/pipeline-state)
fi
if [ -z "${STATIC+set}" ]; then
    STATIC=
    machine=$(uname -m)
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$machine-unknown-linux-musl" ]; then
        kind=$machine-unknown-linux-musl
        (cd "$here/.." && cargo build --profile dist --target "$kind") && STATIC=$(built "$kind/dist/pipeline-state")
    else
        kind=$machine-unknown-linux-gnu
        (cd "$here/.." && RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' cargo build --profile dist --target "$kind") &&
            STATIC=$(built "$kind/dist/pipeline-state")
    fi
fi
binary=$(realpath "$BINARY") static=${STATIC:+$(realpath "$STATIC")}

missing=()
has() { command -v "$1" >/dev/null || { missing+=("$1"); return 1; }; }
for tool in gcc "$binary" ${static:+"$static"}; do
    command -v "$tool" >/dev/null || { printf 'run.sh: %s is missing\n' "$tool" >&2; exit 5; }
done

work=$(mktemp -d ./bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
work=$(realpath "$work")
cd "$work" # from here on all paths are relative, so that none can hold the runner's `@`
# As installed: what a linker wrote lies in the page cache in small pieces, and starts a sixth slower than a copy of it.
cp "$binary" pipeline-state && binary=./pipeline-state
[ -z "$static" ] || { cp "$static" pipeline-state-static && static=./pipeline-state-static; }
export AUDIT_LOG=audit.log SUMMARY=summary.tsv CURVES=${CURVES:-curves.tsv}

for program in race crowd handoff commit; do gcc -O2 -o "$program" "$here/$program.c"; done
mv commit commit-dynamic
gcc -O2 -static -o commit-static "$here/commit.c" 2>/dev/null || missing+=('a static C library')
statics=()
if [ -x commit-static ]; then
    statics=(static)
    [ -n "$static" ] || missing+=('a static build of pipeline-state')
fi

# One document of 1 KB with as many backups as are kept: the root that all others are copies of.
document() { # ROOT BYTES
    mkdir "$1"
    "$binary" --root "$1" -q state init
    local fill=$(($2 - $(stat -c %s "$1/.workflow-state.json") - 13)) # 13: `,\n  "note": ""`
    "$binary" --root "$1" -q state read |
        { printf '{"note":"%s",' "$(head -c "$fill" /dev/zero | tr '\0' x)"; tail -c +2; } |
        "$binary" --root "$1" -q state write
    for _ in 1 2 3 4 5; do "$binary" --root "$1" -q state set phase="$RANDOM$RANDOM"; done
}
document first 1024
root() { cp -a "${2:-first}" "$1"; }
revision_of() { sed -n 's/^ *"revision": \([0-9]*\).*/\1/p' "$1/.workflow-state.json"; }

# Every round, the uncounted ones too, was one revision in each writer's root; otherwise the table is about nothing.
must_be_at() { # REVISION ROOT…
    local wanted=$1 root
    shift
    for root in "$@"; do
        if [ "$(revision_of "$root")" != "$wanted" ] || ! cmp -s "$root/.workflow-state.json" "$root/.state-backups/mirror.json"; then
            printf 'run.sh: %s is at revision %s, not %s, or its mirror is not\n' "$root" "$(revision_of "$root")" "$wanted" >&2
            exit 1
        fi
    done
}

commands=()
add() { commands+=(-- "$@"); }
race() { # ROUNDS
    printf '\n'
    ./race "$1" "${commands[@]}"
    commands=()
}
title() { printf '## %s\n' "$1" >>"$SUMMARY"; }

bench_read() {
    title 'Reading a document of 1 KB'
    local state=first/.workflow-state.json
    add cat - - "$(type -P cat)" "$state"
    add 'state read' cat 1.2 "$binary" --root first state read
    add 'state get .phase' cat 1.4 "$binary" --root first state get .phase
    [ -z "$static" ] || add 'state read, static' cat 0.8 "$static" --root first state read
    [ -z "$static" ] || add 'state get .phase, static' cat 1.4 "$static" --root first state get .phase
    ! has jq || add 'jq .phase' cat - "$(type -P jq)" .phase "$state"
    add 'pipeline-state --version' cat 1.25 "$binary" --version
    [ -z "$static" ] || add 'pipeline-state --version, static' cat - "$static" --version
    race "$((rounds * 2))"
}

bench_write() {
    title 'Writing a document of 1 KB, durably'
    local wanted=$(($(revision_of first) + rounds + few)) writers=() link program peer
    for link in dynamic "${statics[@]}"; do
        peer="C, $link" program=$binary
        root "c-$link" && writers+=("c-$link")
        add "$peer" - - "./commit-$link" "c-$link" x@
        [ "$link" = dynamic ] || program=$static
        [ -n "$program" ] || continue
        root "set-$link" && root "update-$link" && writers+=("set-$link" "update-$link")
        add "state set, $link" "$peer" 1.3 "$program" --root "set-$link" state set phase=x@
        add "state update (jq), $link" "$peer" 1.4 "$program" --root "update-$link" state update '.n = @'
    done
    if has jq && has flock; then
        script first
        add 'flock; jq; mv (not durable)' 'C, dynamic' - "$(type -P sh)" lock-jq-mv.sh script-first @
    fi
    if has sqlite3; then
        sqlite3 one-row.db 'create table state (id integer primary key, phase text); insert into state values (1, "");'
        add 'sqlite3, one row' 'C, dynamic' - "$(type -P sqlite3)" one-row.db \
            "pragma synchronous = full; update state set phase = 'x@' where id = 1;"
        root set-sqlite && writers+=(set-sqlite)
        add 'state set beside sqlite3' 'sqlite3, one row' 0.7 "$binary" --root set-sqlite state set phase=x@
    fi
    if has git; then
        git init -q repository
        git -C repository -c user.name=bench -c user.email=bench@localhost commit -q --allow-empty -m first
        add 'git update-ref, core.fsync=all' 'C, dynamic' - "$(type -P git)" -C repository -c core.fsync=all \
            update-ref refs/bench/@ HEAD
        root set-git && writers+=(set-git)
        add 'state set beside git' 'git update-ref, core.fsync=all' 1.0 "$binary" --root set-git state set phase=x@
    fi
    race "$rounds"
    must_be_at "$wanted" "${writers[@]}"
}

# What scripts do today: no fsync, no backup, no mirror, no log.
script() { # ROOT, of which it gets the document
    mkdir "script-$1" && cp "$1/.workflow-state.json" "script-$1/state.json"
    cat >lock-jq-mv.sh <<'SCRIPT'
{ flock 9 && jq --argjson n "$2" '.n = $n' "$1/state.json" >"$1/state.tmp" && mv "$1/state.tmp" "$1/state.json"; } 9>"$1/lock"
SCRIPT
}

both() { # NAME BASE LIMIT PROGRAM ROOT: a lock taken and given back
    add "$1" "$2" "$3" "$4" --root "$5" lock acquire a ';' "$4" --root "$5" lock release a
}

bench_lock() {
    title 'Locks'
    local flock true
    if has flock; then
        flock=$(type -P flock) true=$(type -P true)
        add 'flock FILE true, twice' - - "$flock" file "$true" ';' "$flock" file "$true"
    fi
    mkdir locks locks-static hands
    both 'acquire and release' 'flock FILE true, twice' 2 "$binary" locks
    [ -z "$static" ] || both 'acquire and release, static' 'flock FILE true, twice' 2 "$static" locks-static
    race "$((rounds * 2))"
    [ -z "${flock:-}" ] || { printf '\n' && ./handoff "$rounds" "$binary" hands "$flock"; }
}

bench_crowd() {
    title 'Crowds'
    local count turns before repeats=3 flock=
    at() { [ "$count" = "$1" ] && echo "$2" || echo -; } # a target at one number of processes
    root crowding && root crowding-c && mkdir crowd-locks && : >crowd-file
    ! has flock || flock=$(type -P flock)
    for count in 1 8 32 128; do
        turns=$(((rounds * 2 + count - 1) / count))
        [ "$count" -lt 128 ] || repeats=1 turns=2 # each waits for all others
        before=$(revision_of crowding)
        printf '\n'
        ./crowd "$count" "$turns" "$repeats" "$count updating" "$(at 32 '>= 0.7')" "$(at 32 '<= 3')" \
            'state update' 'C, dynamic' \
            "$binary" --root crowding --lock-timeout 10m state update '.n = (.n // 0) + 1' -- ./commit-dynamic crowding-c x
        must_be_at $((before + count * turns * repeats)) crowding
        [ -z "$flock" ] || ./crowd "$count" "$turns" "$repeats" "$count taking a lock" "$(at 128 '>= 0.7')" - \
            'acquire and release' 'flock FILE true, twice' \
            "$binary" --root crowd-locks lock acquire hot 10m ';' "$binary" --root crowd-locks lock release hot --lock-timeout 10m \
            -- "$flock" crowd-file "$(type -P true)" ';' "$flock" crowd-file "$(type -P true)"
    done
    awk -F '\t' '$6 ~ /^acquire/ { cpu[$1] = $4 } END {
        if (cpu[8] > 0) printf "processor time of a turn with 128 taking a lock\t%.2f ms\twith 8: %.2f ms\t%.2f\t<= 1.5\n",
            cpu[128], cpu[8], cpu[128] / cpu[8] }' "$CURVES" >>"$SUMMARY"
    ! has python3 || python3 "$here/plot.py" "$CURVES" >"$here/../target/curves.svg" || true
}

# A disk that takes 5 ms more for each sync: strace delays the return of fsync(2) and fdatasync(2), alike for both sides.
bench_slow() {
    has strace || return 0
    strace -f --seccomp-bpf -e trace=fsync -o slow.log true 2>slow.err || { missing+=('strace --seccomp-bpf'); return 0; }
    title 'With 5 ms added to every sync'
    cat >slow <<'SLOW'
#!/bin/sh
exec strace -f --seccomp-bpf -qq -o /dev/null -e trace=fsync,fdatasync -e inject=fsync,fdatasync:delay_exit=5000 "$@"
SLOW
    chmod +x slow
    local count turns before
    root slowly && root slowly-c
    for count in 1 32; do
        turns=$(((few * 4 + count - 1) / count))
        before=$(revision_of slowly)
        printf '\n'
        CURVES=/dev/null ./slow ./crowd "$count" "$turns" 1 "$count updating, slow syncs" - - 'state update' 'C, dynamic' \
            "$binary" --root slowly --lock-timeout 10m state update '.n = (.n // 0) + 1' -- ./commit-dynamic slowly-c x
        must_be_at $((before + count * turns)) slowly
    done
}

bench_hook() {
    title 'Hooks: a hundred rules, one event'
    root hooks
    "$binary" -q --root hooks hook init-rules
    awk 'BEGIN {
        printf "{\"skills\": [], \"tool_rules\": ["
        for (rule = 0; rule < 100; rule++)
            printf "%s{\"tool\": \"Bash\", \"command_regex\": \"\\\\b(make|cargo) +target-%d\\\\b\", \"emit_signal\": \"BUILT_%d\"}",
                rule ? ", " : "", rule, rule
        printf "]}\n" }' >hooks/config/skill-rules.json
    printf '{"hook_event_name":"PostToolUse","tool_name":"Bash","tool_input":{"command":"ls -l"},"tool_response":{}}' >no-match
    printf '{"hook_event_name":"PostToolUse","tool_name":"Bash","tool_input":{"command":"make target-99"},"tool_response":{}}' >match
    for event in no-match match; do
        printf '#!/bin/sh\nexec "$1" --root hooks hook post-tool-use-tracker <%s\n' "$event" >"hook-$event" && chmod +x "hook-$event"
    done
    printf '#!/bin/sh\nexec "$1" --root hooks state read <no-match\n' >read-it && chmod +x read-it
    add 'sh, state read' - - ./read-it "$binary"
    add 'sh, a tool event that matches nothing' 'sh, state read' 1.0 ./hook-no-match "$binary"
    ! has node || add 'node -e 0' - - "$(type -P node)" -e 0
    add 'sh, a tool event that matches a rule' "$(has node && echo 'node -e 0' || echo -)" 0.1 ./hook-match "$binary"
    race "$rounds"
}

# A legal document of about 10 MB made of this jq program's array.
ten_megabytes() { # ROOT JQ-PROGRAM
    root "$1"
    "$binary" --root "$1" state read | jq -c ".many = [$2]" | "$binary" --root "$1" -q state write -
}

bench_large() {
    has jq && has flock || return 0
    title 'A document of 10 MB'
    local kind
    ten_megabytes strings 'range(100000) | "task \(.) of the pipeline, with some words to say what it is about: lorem ipsum dolor sit amet"'
    ten_megabytes numbers 'range(900000) | . * 37'
    for kind in strings numbers; do
        script "$kind"
        add "flock; jq; mv, $kind" - - "$(type -P sh)" lock-jq-mv.sh "script-$kind" @
        add "state update, $kind" "flock; jq; mv, $kind" "$([ "$kind" = strings ] && echo 0.2 || echo -)" \
            "$binary" --root "$kind" state update '.n = @'
    done
    race "$(((few + 2) / 3))"
    for kind in strings numbers; do # the largest memory of one more run, beside the file
        ./race 1 -- "$kind" - - "$binary" --root "$kind" state update '.n = @ + 0.5' |
            awk -v bytes="$(stat -c %s "$kind/.workflow-state.json")" -v kind="$kind" 'NR == 2 {
                printf "peak memory, %s\t%.0f MiB\tthe file: %.1f MiB\t%.2f\t%s\n", kind, $7, bytes / 1048576, $7 / (bytes / 1048576),
                    kind == "strings" ? "<= 3" : "-" }' >>"$SUMMARY"
    done
}

bench_growth() {
    title 'Growth'
    local size names times
    for size in 64K 1M 16M; do
        case $size in 64K) times=65536 ;; 1M) times=1048576 ;; 16M) times=16776000 ;; esac
        document "size-$size" "$times"
    done
    root size-1K
    add 'set, 1 KB' - - "$binary" --root size-1K state set phase=x@
    for size in 64K 1M 16M; do
        add "set, ${size}B" 'set, 1 KB' - "$binary" --root "size-$size" state set phase=x@
        add "read, ${size}B" 'set, 1 KB' - "$binary" --root "size-$size" state read
    done
    race "$few"

    # All other lock names, at most 64 of which are taken at once: used before, and held.
    seq -f 'other-%.0f' 10000 | paste -sd, | sed 's/\(\([^,]*,\)\{63\}[^,]*\),/\1\n/g' >names
    root plain && root used && root held && root checkpoints
    while read -r names; do
        "$binary" -q --root used lock acquire "$names" --owner-pid $$
        "$binary" -q --root used lock release "$names" --owner-pid $$
        "$binary" -q --root held lock acquire "$names" --owner-pid $$
    done <names
    for _ in $(seq 1000); do "$binary" -q --root checkpoints recover checkpoint bench; done
    root log && truncate -s 1G log.log && chmod 600 log.log # sparse: nothing may write it back while the clock runs
    root backups
    for _ in $(seq 500); do STATE_MAX_BACKUPS=500 "$binary" -q --root backups state set phase="$RANDOM$RANDOM$RANDOM"; done
    [ "$(find backups/.state-backups -name 'state-*' | wc -l)" = 500 ]
    sync . # what all this wrote must not be written while the clock runs

    add 'set' - - "$binary" --root plain state set phase=x@
    add 'set, 10,000 locks held' 'set' 1.05 "$binary" --root held state set phase=x@
    add 'set, 1,000 checkpoints' 'set' 1.05 "$binary" --root checkpoints state set phase=x@
    add 'set, audit log of 1 GB' 'set' 1.05 AUDIT_LOG=log.log "$binary" --root log state set phase=x@
    add 'set, 500 backups' 'set' - STATE_MAX_BACKUPS=500 "$binary" --root backups state set phase=x@
    race "$rounds"
    mkdir empty
    both 'acquire and release' - - "$binary" plain
    both 'the same, 10,000 names used' 'acquire and release' 1.05 "$binary" used
    both 'the same, 10,000 names held' 'acquire and release' 1.05 "$binary" held
    both 'the same, 1,000 checkpoints' 'acquire and release' 1.05 "$binary" checkpoints
    race "$rounds"
}

# The whole once more as one table, in Markdown.
table() {
    awk -F '\t' '
        function row(a, b, c, d, e, f) { printf "| %s | %s | %s | %s | %s | %s |\n", a, b, c, d, e, f }
        BEGIN { row("what", "ours", "peer", "ratio", "target", "") ; print "|---|---:|---:|---:|---:|---|" }
        /^## / { row("**" substr($0, 4) "**", "", "", "", "", "") ; next }
        {
            limit = $5; judged = $4; verdict = ""
            if (limit ~ /µs/) judged = $2
            split(limit, part, " ")
            if (part[1] == "<=") verdict = judged + 0 <= part[2] + 0 ? "held" : "missed"
            if (part[1] == ">=") verdict = judged + 0 >= part[2] + 0 ? "held" : "missed"
            row($1, $2, $3, $4, limit == "-" ? "" : limit, verdict)
        }' "$SUMMARY"
}

printf '%s rounds, file system %s (%s), %s processors, Linux %s, load %s\n' "$rounds" "$(stat -f -c %T .)" \
    "$(df --output=fstype . | tail -n 1)" "$(nproc)" "$(uname -r)" "$(cut -d ' ' -f 1-3 /proc/loadavg)"
for section in $sections; do "bench_$section"; done
printf '\n'
table
printf '\n'
[ ${#missing[@]} = 0 ] || printf 'missing here: %s\n' "$(printf '%s\n' "${missing[@]}" | sort -u | paste -sd, | sed 's/,/, /g')"
load=$(cut -d ' ' -f 1 /proc/loadavg)
printf 'load afterwards %s%s\n' "$load" "$([ "${load%.*}" -lt 2 ] || echo ': a busy machine, which flatters ratios; compare min and cpu')"
