# The process of this (sub)shell, which $$ is not in a subshell. bash before 4 has no BASHPID.
_pipeline_find_self() { _pipeline_self=${BASHPID:-$(_pipeline_parent)}; }
