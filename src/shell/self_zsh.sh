# The process of this (sub)shell, which $$ is not in a subshell.
zmodload -F zsh/system p:sysparams 2>/dev/null || :
# shellcheck disable=SC2154,SC3054
_pipeline_find_self() {
  _pipeline_self=${sysparams:+${sysparams[pid]}}
  _pipeline_self=${_pipeline_self:-$(_pipeline_parent)}
}
