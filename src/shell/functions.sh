
# They return the program's exit codes and print only what they are asked for. What begins with _pipeline_ is their own.
# Their arguments are data, never options. What must last while something else runs is in $1 and so on or local, so that each
# call has it for itself: a trap, too, may call these functions meanwhile.
_pipeline_self='' _pipeline_borrowed=${_pipeline_borrowed-}
CHECKPOINT_ID=${CHECKPOINT_ID-}

init_state_manager() { _pipeline state init >/dev/null; }
validate_state() { _pipeline state validate -- ${1:+"$1"}; }
backup_state() { _pipeline state backup -- ${1:+"$1"} >/dev/null; }
recover_state() { _pipeline state recover -- ${1:+"$1"} >/dev/null; }
migrate_state() { _pipeline state migrate >/dev/null; }

# write_state DOCUMENT [REASON]. A document may be longer than an argument of a command; a closed pipe is the program's to explain.
write_state() {
  { "$_pipeline_builtin" printf '%s\n' "${1-}" 2>/dev/null || :; } | _pipeline state write - ${2:+"--reason=$2"} >/dev/null
}

# read_state [FILE] prints the document, or writes it into a file, which is left alone where there is nothing to write.
read_state() {
  case ${1-} in '') _pipeline state read; return "$?" ;; esac
  local _pipeline_document=''
  _pipeline_document=$(_pipeline state read) || return "$?"
  "$_pipeline_builtin" printf '%s\n' "$_pipeline_document" >"$1"
}

# lock_state [TIMEOUT]. The lock belongs to this (sub)shell, and nests: it takes as many unlock_state. What an ancestor holds
# is held here, too; its count is left alone, since this (sub)shell may end before it unlocks.
lock_state() {
  _pipeline_find_self
  set -- "$(_pipeline_said lock acquire state --borrow ${1:+"--timeout=$1"} --owner-pid="$_pipeline_self")"
  case $1 in
    failed*) return "${1#failed }" ;;
    *borrowed*) _pipeline_borrowed="$_pipeline_borrowed $_pipeline_self" ;;
  esac
}

# unlock_state undoes one lock_state.
unlock_state() {
  _pipeline_find_self
  case $_pipeline_borrowed in
    *" $_pipeline_self") _pipeline_borrowed=${_pipeline_borrowed% *} ;;
    *) _pipeline lock release state >/dev/null || return "$?" ;;
  esac
}

# acquire_lock NAME [TIMEOUT] [exclusive|shared] [METADATA], for this (sub)shell. (A shell may become its last command, which
# cannot own a lock: hence the return. In a trap, a return that does not say what returns what was before the trap.)
acquire_lock() {
  _pipeline_find_self
  _pipeline lock acquire --owner-pid="$_pipeline_self" -- "${1-}" ${2:+"$2"} ${3:+"$3"} ${4:+"$4"} >/dev/null || return "$?"
}

release_lock() { _pipeline lock release -- "${1-}" >/dev/null; }
check_lock() { _pipeline lock check -- "${1-}"; }

# create_checkpoint OPERATION [PHASE] [METADATA] sets CHECKPOINT_ID; to nothing if there is no checkpoint.
create_checkpoint() {
  set -- "$(_pipeline_said recover checkpoint -- "${1-}" ${2:+"$2"} ${3:+"$3"})"
  CHECKPOINT_ID=''
  case $1 in failed*) return "${1#failed }" ;; esac
  set -- "${1#*checkpoint-}"
  CHECKPOINT_ID=checkpoint-${1%%[!A-Za-z0-9._-]*}
}

# restore_checkpoint [ID]: the last one that create_checkpoint made, where none is named.
restore_checkpoint() {
  set -- "${1:-${CHECKPOINT_ID-}}"
  _pipeline recover restore --yes -- ${1:+"$1"} >/dev/null
}

enable_degraded_mode() { _pipeline recover degrade -- "${1-}" ${2:+"$2"} >/dev/null; }
disable_degraded_mode() { _pipeline recover recover-mode >/dev/null; }

# is_degraded_mode [FEATURE] prints true or false, and returns 0 either way.
is_degraded_mode() {
  set -- "$(_pipeline_said recover degraded --exit-zero -- ${1:+"$1"})"
  case $1 in
    failed*) return "${1#failed }" ;;
    'degraded since '* | *'"disabled":true'* | *'"degraded":true'*'"disabled":null'*) set -- true ;;
    *) set -- false ;;
  esac
  "$_pipeline_builtin" printf '%s\n' "$1"
}

# retry_with_backoff COMMAND [ATTEMPTS [BASE_DELAY [ARGUMENT…]]]: at most 3 attempts, unless another one would change nothing.
# The command may be a function that retries something itself.
retry_with_backoff() {
  local _pipeline_command='' _pipeline_next=0
  [ "$#" -ge 3 ] || set -- "${1-}" "${2-3}" "${3-2}"
  _pipeline pause -- 0 "$2" 0 "$3" || return "$?"
  set -- 1 "$@"
  while :; do
    _pipeline_attempt "$@" && return 0
    set -- "$?" "$@"
    case $1 in 4 | 6 | 7 | 126 | 127 | 130 | 143) return "$1" ;; esac
    [ "$2" -lt "$4" ] || return "$1"
    _pipeline pause -- "$2" "$4" "$1" "$5" || return "$?"
    _pipeline_next=$(($2 + 1))
    shift 2
    set -- "$_pipeline_next" "$@"
  done
}

_pipeline_attempt() {
  _pipeline_command=$2
  shift 4
  "$_pipeline_command" "$@"
}

# The parent of a process that takes the place of a subshell is the shell that calls.
_pipeline_parent() { exec /bin/sh -c 'command printf %s "$PPID"'; }
# What the program says; or, where it fails, with which code.
_pipeline_said() { _pipeline "$@" || "$_pipeline_builtin" printf 'failed %s' "$?"; }
