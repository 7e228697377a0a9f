//! The `hook` group as clap reads it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::hook::settings::EditorScope;

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
    /// Handle a new session: report where the pipeline is
    #[command(
        name = "session-start",
        after_help = "Reads the event from standard input, as JSON, and answers with
`additionalContext`: the phase, the last activation, the open signals and the
degraded mode, each value in quotes. Ends with 0 or 1 and never with 2; within
5 s.

Examples:
  echo '{\"hook_event_name\":\"SessionStart\",\"source\":\"resume\"}' |
    pipeline-state hook session-start

JSON:
  the answer to the editor, as without --json"
    )]
    Session,
    /// Add the hooks to the editor's settings
    #[command(
        after_help = "Keeps everything that is in the file, and its form. A file with comments, or
that is no JSON, is refused and not touched. --project, the default, is
.claude/settings.json, which a team shares: it names pipeline-state as PATH finds
it, and no path of this machine. --local is .claude/settings.local.json, --user
settings.json in ~/.claude or $CLAUDE_CONFIG_DIR.

Examples:
  pipeline-state hook install --dry-run
  pipeline-state hook install
  pipeline-state hook install --user --absolute

JSON:
  {path: string, changed: boolean, dry_run: boolean,
    hooks: [{event: string, change: string}]}"
    )]
    Install(Install),
    /// Remove the hooks from the editor's settings
    #[command(
        after_help = "Removes plain calls of this program's hooks, and what is empty then. A command
that does more is yours, and stays.

Examples:
  pipeline-state hook uninstall
  pipeline-state hook uninstall --user --dry-run

JSON:
  as `hook install`"
    )]
    Uninstall(Uninstall),
    /// Explain, rule by rule, what an event would do; changes nothing
    #[command(
        after_help = "The event is given by options or, as an editor sends it, on standard input.

Examples:
  pipeline-state hook test --prompt 'write a specification'
  pipeline-state hook test --tool Write --file docs/spec.md
  pipeline-state hook test --tool Bash --command 'make test'
  pipeline-state hook test <event.json

JSON:
  {event: string, path: string, rules: [{rule: string, matches: boolean,
    unmet: string|null}], signals: [string], phase: string|null,
    activation: string|null, announcements: [string]}"
    )]
    Test(Test),
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

/// The settings file to edit.
#[derive(Args, Clone, Copy, Debug)]
pub struct Place {
    /// The project's settings, which a team shares [default]
    #[arg(long, conflicts_with_all = ["local", "user"])]
    project: bool,
    /// Your own settings for this project
    #[arg(long, conflicts_with = "user")]
    local: bool,
    /// Your settings for all projects
    #[arg(long)]
    user: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Place {
    /// The scope that was named.
    pub fn scope(self) -> EditorScope {
        match (self.local, self.user) {
            (true, _) => EditorScope::Local,
            (_, true) => EditorScope::User,
            _ => EditorScope::Project,
        }
    }
}

#[derive(Args, Debug)]
pub struct Install {
    #[command(flatten)]
    pub place: Place,
    /// Name this program by its path
    #[arg(long)]
    pub absolute: bool,
}

#[derive(Args, Debug)]
pub struct Uninstall {
    #[command(flatten)]
    pub place: Place,
}

/// An event to explain.
#[derive(Args, Debug)]
pub struct Test {
    /// A prompt
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["tool", "file", "command"])]
    pub prompt: Option<String>,
    /// A tool that was used
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// The file that it was used on
    #[arg(long, requires = "tool")]
    pub file: Option<PathBuf>,
    /// The command that it ran
    #[arg(long, requires = "tool", value_name = "CMD")]
    pub command: Option<String>,
}
