//! Turns the words of a command line into types.

use std::ffi::OsString;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};

use super::args::lock::{Acquire, Check, Release, Run};
use super::args::recover::Degraded;
use super::args::shell::{Functions, Pause};
use super::args::{Cli, Global, Group, Hook, Lock, Recover, State};
use super::help::{self, Topic};

/// The arguments of one command, parsed without the tree of all others.
#[derive(Debug, Parser)]
#[command(name = "pipeline-state")]
struct Direct<A: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    command: A,
}

#[derive(Args, Debug)]
struct Nothing {}

impl Cli {
    /// Parses a command line. Building the tree of all commands takes clap longer than most
    /// commands take to run, so frequent commands are parsed alone. If that fails, for an error or
    /// a call for help, the whole tree answers.
    pub fn parse_line(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let helped =
            |error| help_asked(arguments).map_or(Err(error), |line| Self::parse_whole(&line));
        let whole = || Self::parse_whole(arguments).or_else(helped);
        Self::parse_directly(arguments).map_or_else(whole, Ok)
    }

    fn parse_whole(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let mut tree = help::tree();
        let mut matches = tree.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut tree))
    }

    fn parse_directly(arguments: &[OsString]) -> Option<Self> {
        let (before, [group, after_group @ ..]) =
            arguments.split_at_checked(group_place(arguments)?)?
        else {
            return None;
        };
        let [command, rest @ ..] = after_group else { return None };
        fn direct<A: Args>(
            before: &[OsString],
            rest: &[OsString],
            wrap: fn(A) -> Group,
        ) -> Option<Cli> {
            let parsed = Direct::<A>::try_parse_from(before.iter().chain(rest)).ok()?;
            Some(Cli { global: parsed.global, group: wrap(parsed.command) })
        }
        match (group.to_str()?, command.to_str()?) {
            ("state", "read") => direct(before, rest, |Nothing {}| Group::State(State::Read)),
            ("state", "get") => direct(before, rest, |command| Group::State(State::Get(command))),
            ("state", "set") => direct(before, rest, |command| Group::State(State::Set(command))),
            ("state", "update") => {
                direct(before, rest, |command| Group::State(State::Update(command)))
            }
            ("state", "write") => {
                direct(before, rest, |command| Group::State(State::Write(command)))
            }
            ("state", "phase") => {
                direct(before, rest, |command| Group::State(State::Phase(command)))
            }
            ("state", "complete") => {
                direct(before, rest, |command| Group::State(State::Complete(command)))
            }
            ("state", "signal") => {
                direct(before, rest, |command| Group::State(State::Signal(command)))
            }
            ("lock", "acquire") => {
                direct::<Acquire>(before, rest, |command| Group::Lock(Lock::Acquire(command)))
            }
            ("lock", "release") => {
                direct::<Release>(before, rest, |command| Group::Lock(Lock::Release(command)))
            }
            ("lock", "check") => {
                direct::<Check>(before, rest, |command| Group::Lock(Lock::Check(command)))
            }
            ("recover", "degraded") => direct::<Degraded>(before, rest, |command| {
                Group::Recover(Recover::Degraded(command))
            }),
            ("hook", "skill-activation-prompt") => {
                direct(before, rest, |Nothing {}| Group::Hook(Hook::Prompt))
            }
            ("hook", "session-start") => {
                direct(before, rest, |Nothing {}| Group::Hook(Hook::Session))
            }
            ("hook", "post-tool-use-tracker") => {
                direct(before, rest, |Nothing {}| Group::Hook(Hook::Tool))
            }
            ("lock", "run") => {
                direct::<Run>(before, rest, |command| Group::Lock(Lock::Run(command)))
            }
            ("shell", _) => direct::<Functions>(before, after_group, Group::Shell),
            ("pause", _) => direct::<Pause>(before, after_group, Group::Pause),
            _ => None,
        }
    }
}

/// Commands that can be typed without their group.
pub const SHORT_FORMS: [(&str, &str); 8] = [
    ("status", "state"),
    ("get", "state"),
    ("set", "state"),
    ("undo", "state"),
    ("history", "state"),
    ("diff", "state"),
    ("watch", "state"),
    ("doctor", "recover"),
];

/// The line with the group of a short form: `state get .n` for `get .n`.
pub fn with_group(arguments: &[OsString]) -> Vec<OsString> {
    let mut line = arguments.to_vec();
    let Some(place) = group_place(arguments) else { return line };
    // `help get`
    let place = if line.get(place).is_some_and(|word| word == "help") { place + 1 } else { place };
    let word = line.get(place).and_then(|word| word.to_str());
    let group = SHORT_FORMS.iter().find(|(short, _)| word == Some(*short)).map(|(_, group)| *group);
    if let Some(group) = group {
        line.insert(place, group.into());
    }
    line
}

/// The page that `help TOPIC` names; all pages for `help pages`.
pub fn topic_asked(arguments: &[OsString]) -> Option<Topic> {
    let place = group_place(arguments)?;
    let [help, topic] = arguments.get(place..)? else { return None };
    let topic = topic.to_str().filter(|_| help == "help")?;
    if topic == "pages" || topic == "topics" {
        return Some(Topic::List);
    }
    help::page(topic).map(Topic::Page)
}

/// The line `state set --help` for `help state set` and `state help set`. As a clap command, `help`
/// would be listed in each group and have pages.
pub fn help_asked(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let place = group_place(arguments)?;
    let place = [place, place + 1]
        .into_iter()
        .find(|place| arguments.get(*place).is_some_and(|word| word == "help"))?;
    let mut line = arguments.to_vec();
    line.remove(place);
    line.push("--help".into());
    Some(line)
}

/// Index of the group's name: after the program's own name and the global options.
fn group_place(arguments: &[OsString]) -> Option<usize> {
    const WITH_VALUE: [&str; 8] = [
        "--root",
        "--state-file",
        "--store",
        "--audit-log",
        "--lock-timeout",
        "--lock-exit",
        "--format",
        "--color",
    ];
    let mut place = 1;
    loop {
        match arguments.get(place)?.to_str()? {
            word if WITH_VALUE.contains(&word) => place += 2,
            word if word.starts_with('-') => place += 1,
            _ => return Some(place),
        }
    }
}

/// The group and the command of a line, if they are known.
pub fn command_words(arguments: &[OsString]) -> Vec<String> {
    let mut words = Vec::new();
    let mut tree = Cli::command();
    let after =
        group_place(arguments).map_or(&[][..], |place| arguments.get(place..).unwrap_or_default());
    for word in after.iter().map_while(|word| word.to_str()) {
        let Some(command) = tree.find_subcommand(word).cloned() else { break };
        words.push(word.to_owned());
        tree = command;
    }
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_parsed_alone_equals_the_whole_trees_result() {
        let lines = [
            "state read",
            "state read --json -q --root /x",
            "state get .a -e --default -1 --state-file f -v",
            "state set a=b c:=1 --reason r --if-revision 3 --dry-run --lock-timeout 5s",
            "state update .x --arg a -b --argjson c 1 --arg d e",
            "state write - --force --color never",
            "state phase",
            "state complete a -- -b",
            "state signal S --phase p --metadata {} --lock-exit 9",
            "state set a=b --fence deploy:3 --fence x:4",
            "--root r shell bash --lock-timeout 2",
            "pause 1 3 5 0.5 -q",
            "pause -- 0 -1 0 --help",
            "lock acquire a,b 30 shared {} --print-token --owner-pid 7 -q",
            "lock acquire --owner-pid=7 -- --json -h",
            "lock release a --token 3 --lock-timeout 1",
            "--root /x lock check a --exit-zero --json",
            "recover degraded mail --exit-zero --json",
            "hook skill-activation-prompt --root /x",
            "hook session-start -q",
            "--state-file f hook post-tool-use-tracker --lock-timeout 2",
            "lock run a -t 5s --conflict-code 7 -v -- sh -c x --root",
            "--root state state read",
            "--root=state --json -vv state get .x",
            "--state-file a --audit-log b --lock-timeout 1 --lock-exit 3 --format json --color \
             auto -q state phase p",
        ];
        for line in lines {
            let words: Vec<OsString> =
                ["pipeline-state"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            let alone = Cli::parse_directly(&words).unwrap_or_else(|| unreachable!("{line}"));
            assert_eq!(
                format!("{alone:?}"),
                format!("{:?}", Cli::try_parse_from(&words).unwrap()),
                "{line}"
            );
        }
        for line in [
            "state read x",
            "state get",
            "state set --help",
            "--root state read",
            "--root state get .x .y",
            "-x state read",
            "shell",
            "shell fish",
            "--",
            "state status",
        ] {
            let words: Vec<OsString> =
                ["pipeline-state"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            assert!(Cli::parse_directly(&words).is_none(), "{line}");
        }
    }
}
