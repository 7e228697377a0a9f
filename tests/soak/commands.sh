# shellcheck shell=bash disable=SC2015,SC2017,SC2034,SC2154 # what is not set here is set in soak.sh
# The commands that are broken by power cuts, full disks and failing fsyncs: how their root begins, and what is to be seen
# before and after.

commands=(set update signal init restore checkpoint acquire release)

# The root in which the command begins, as $disk/start.
begin() {
  rm -rf "$disk/start" "$answers/token" && mkdir "$disk/start" && cd "$disk/start" || exit 1
  export AUDIT_LOG=$PWD/audit.log
  [ "$1" = init ] && return
  state init -q && state set -q v:=1 || exit 1
  case $1 in
    restore)
      mkdir config && echo 2 >config/v && state signal -q S2 && state set -q v:=2 || exit 1
      "$binary" recover checkpoint good -q || exit 1
      echo 1 >config/v && state signal -q S2 --clear && state set -q v:=1 || exit 1
      ;;
  esac
}

# The words of the command.
words() {
  case $1 in
    set) words=(state set v:=2) ;;
    update) words=(state update '.v = 2') ;;
    signal) words=(state signal GO) ;;
    init) words=(state init) ;;
    restore) words=(recover restore --latest good) ;;
    checkpoint) words=(recover checkpoint again) ;;
    acquire) words=(lock acquire deploy 0 --owner-pid $$) ;;
    release) words=(lock release deploy --owner-pid $$) ;;
  esac
}

# What is there now: `old`, `new`, or what it is instead.
seen() {
  local code found
  case $1 in
    set | update)
      found=$(state get .v 2>"$answers/get") || { echo "unreadable ($?): $(<"$answers/get")"; return; }
      [ "$found" = "$(live .v)" ] || { echo "$found is told and $(live .v) is in the file"; return; }
      case $found in 1) echo old ;; 2) echo new ;; *) echo "v is $found" ;; esac
      ;;
    signal)
      found=$(state get .signals.GO --default none 2>"$answers/get") || { echo "unreadable ($?): $(<"$answers/get")"; return; }
      if [ "$found" = none ]; then
        [ -e .signals/GO.json ] && echo 'a signal file without a signal' || echo old
      else
        echo new
      fi
      ;;
    init)
      state read >"$answers/read" 2>"$answers/get"
      code=$?
      case $code in 0) echo new ;; 1) echo old ;; *) echo "unreadable ($code): $(<"$answers/get")" ;; esac
      ;;
    restore)
      found=$(state get .v 2>"$answers/get") || { echo "unreadable ($?): $(<"$answers/get")"; return; }
      found+=" $(<config/v) $(ls .signals)"
      case $found in '1 1 ') echo old ;; '2 2 S2.json') echo new ;; *) echo "a mix: $found" ;; esac
      ;;
    checkpoint)
      "$binary" recover verify >/dev/null 2>"$answers/get" || { echo "a damaged checkpoint: $(<"$answers/get")"; return; }
      [ "$(state get .v)" = 1 ] || { echo 'the state is another'; return; }
      if "$binary" recover list json | jq -e 'any(.operation == "again")' >/dev/null; then echo new; else echo old; fi
      ;;
    acquire | release)
      # After a reboot it has no holder. Its holder before that is this script.
      found=$("$binary" lock check deploy 2>"$answers/get")
      code=$?
      case $code:$found in
        "0:locked:exclusive:$$") [ "$1" = acquire ] && echo new || echo old ;;
        1:unlocked | 1:stale) [ "$1" = acquire ] && echo old || echo new ;;
        *) echo "($code) $found $(<"$answers/get")" ;;
      esac
      ;;
  esac
}

# The next writer, and the root after it.
next_command() {
  case $1 in
    init) state init -q 2>"$answers/next" || { violation "the next init fails after $2: $(<"$answers/next")"; return; } ;;
    acquire | release)
      # No token comes again, and after a reboot the lock is free.
      local told highest token
      told=$(grep -hEo 'token [0-9]+' "$answers/out"; cat "$answers/token" 2>/dev/null)
      highest=$(grep -Eo '[0-9]+$' <<<"$told" | sort -n | tail -1)
      token=$("$binary" lock acquire other 0 --print-token --owner-pid $$ 2>"$answers/next") ||
        { violation "the next acquire fails ($?) after $2: $(<"$answers/next")"; return; }
      ((token > ${highest:-0})) || violation "token $token comes after $highest: $2"
      "$binary" lock acquire deploy 0 --owner-pid $$ --reentrant >/dev/null 2>"$answers/next" ||
        violation "the lock is stuck ($?) after $2: $(<"$answers/next")"
      ;;
  esac
  state set -q z:=1 2>"$answers/next" || { violation "the next writer fails ($?) after $2: $(<"$answers/next")"; return; }
  settled "$2"
}
