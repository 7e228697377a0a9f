# The process of this (sub)shell, which $$ is not in a subshell: a builtin opens /proc/self as the shell.
_pipeline_find_self() {
  { IFS=' ' "$_pipeline_builtin" read -r _pipeline_self _; } 2>/dev/null </proc/self/stat ||
    _pipeline_self=$(_pipeline_parent)
}
