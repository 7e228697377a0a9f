//! The `hook` group as clap reads it.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub enum Hook {
    /// Handle a submitted prompt: activate the matching skill
    #[command(
        name = "skill-activation-prompt",
        after_help = "Reads the event from standard input, as JSON, and answers with
`additionalContext`: [ACTIVATE:CODE]. Ends with 0 or 1 and never with 2, which
would block the prompt; within 5 s.

Examples:
  echo '{\"prompt\":\"write a spec\"}' | pipeline-state hook skill-activation-prompt

JSON:
  the answer to the editor, as without --json"
    )]
    Prompt,
    /// Handle a tool use: raise the matching signals
    #[command(
        name = "post-tool-use-tracker",
        after_help = "Reads the event from standard input, as JSON, and answers with
`additionalContext`: what comes next. Ends with 0, or with 1 if a signal was
lost, and never with 2; within 5 s.

Examples:
  echo '{\"tool_name\":\"Bash\",\"tool_input\":{\"command\":\"make test\"}}' |
    pipeline-state hook post-tool-use-tracker

JSON:
  the answer to the editor, as without --json"
    )]
    Tool,
    /// Print the editor settings that enable the hooks
    #[command(after_help = "Examples:
  pipeline-state hook settings  # paste into .claude/settings.json
  pipeline-state --root ~/project hook settings  # for another root

JSON:
  the settings, as without --json")]
    Settings,
    /// Write a starter rules file
    #[command(
        name = "init-rules",
        after_help = "Never overwrites a file.

Examples:
  pipeline-state hook init-rules

JSON:
  {path: string}"
    )]
    InitRules,
    /// Validate the rules file
    #[command(after_help = "Reads config/skill-rules.json or, where there is none,
.claude/skills/skill-rules.json; says which, in which form, and what of it hooks
do not use. Exit 0 if all rules can be used, 4 if one cannot, 5 if there are none.

Examples:
  pipeline-state hook check

JSON:
  {valid: boolean, path: string, form: string|null, unread: string|null, usable: {skills: number,
    phase_transitions: number, tool_rules: number}, findings: [{line: number,
    place: string, message: string, weight: string}]}")]
    Check,
}
