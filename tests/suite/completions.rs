//! Completions, asked for as bash, zsh and fish do, and the manual.

use std::process::Command;

use crate::sandbox::{BINARY, Ran, Sandbox, installed};

/// Asks a real shell for the completions of lines. Returns the words without their descriptions.
struct Asked<'a> {
    sandbox: &'a Sandbox,
    shell: &'static str,
    /// Home directory of the shells, and location of the program.
    home: Sandbox,
}

impl Asked<'_> {
    /// The candidates after the words, the last of which is incomplete.
    fn offers(&self, words: &[&str]) -> Vec<String> {
        let load = "export PATH=\"$BIN:$PATH\"\n";
        let quoted: Vec<String> =
            words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let (words, last) = (quoted.join(" "), quoted.len() - 1);
        let (arguments, script) = match self.shell {
            "bash" => (
                &["-c"][..],
                format!(
                    "{load}source <(pipeline-state completions bash)\n\
                     COMP_WORDS=({words}) COMP_CWORD={last} COMP_TYPE=9\n\
                     $(complete -p pipeline-state | sed 's/.* -F \\([^ ]*\\) .*/\\1/') \
                     pipeline-state \"${{COMP_WORDS[COMP_CWORD]}}\" x\n\
                     printf '%s\\n' \"${{COMPREPLY[@]}}\""
                )
                // a substitution would keep its settings
                .replace("\n$(complete", "\nf=$(complete")
                .replace("\\1/') pipeline", "\\1/')\n\"$f\" pipeline"),
            ),
            "zsh" => (
                &["-f", "-c"][..],
                format!(
                    "{load}autoload -Uz compinit; compinit -u -d \"$HOME/dump\"\n\
                     source <(pipeline-state completions zsh)\n\
                     _describe() {{ local name=${{@[-1]}}; [[ $name == /* ]] && name=dirs; \
                     print -rl -- ${{(P)name}} }}\n\
                     _files() {{ local files=(${{words[CURRENT]}}*(N)); print -rl -- $files }}\n\
                     words=({words}) CURRENT=$(({last} + 1))\n$_comps[pipeline-state]"
                ),
            ),
            _ => (
                &["-c"][..],
                format!(
                    "set -x PATH $BIN $PATH\npipeline-state completions fish | source\n\
                     complete -C {}",
                    quote_fish(&quoted)
                ),
            ),
        };
        let mut command: Command = self.sandbox.program(self.shell);
        let bin = self.home.file("bin");
        if !bin.exists() {
            std::fs::create_dir(&bin).unwrap();
            std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
        }
        command.args(arguments).arg(script).env("BIN", bin).env("HOME", self.home.path());
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(ran.stderr, "", "{}", self.shell);
        let word = |line: &str| line.split(['\t', ':']).next().unwrap().to_owned();
        ran.stdout.lines().map(word).filter(|word| !word.is_empty()).collect()
    }
}

fn quote_fish(words: &[String]) -> String {
    let line = words.join(" ").replace("''", "");
    format!("\"{}\"", line.replace('\'', ""))
}

/// The shells that are installed, asked about a root.
fn shells(sandbox: &Sandbox) -> impl Iterator<Item = Asked<'_>> {
    let shells = ["bash", "zsh", "fish"].into_iter().filter(|shell| installed(shell));
    shells.map(|shell| Asked { sandbox, shell, home: Sandbox::empty() })
}

#[test]
fn commands_values_and_options_are_offered() {
    let sandbox = Sandbox::empty();
    for asked in shells(&sandbox) {
        let shell = asked.shell;
        assert_eq!(
            asked.offers(&["pipeline-state", ""])[..3],
            ["state", "lock", "recover"],
            "{shell}: and no options where there are commands"
        );
        assert_eq!(asked.offers(&["pipeline-state", "do"]), ["doctor"], "{shell}");
        let all = asked.offers(&["pipeline-state", ""]);
        assert!(
            !all.iter().any(|word| word == "pause" || word.starts_with('-')),
            "{shell}: {all:?}"
        );
        assert_eq!(
            asked.offers(&["pipeline-state", "lock", "re"]),
            ["release", "renew"],
            "{shell}"
        );
        assert_eq!(
            asked.offers(&["pipeline-state", "shell", ""]),
            ["bash", "zsh", "sh"],
            "{shell}"
        );
        assert_eq!(
            asked.offers(&["pipeline-state", "state", "set", "--re"]),
            ["--reason"],
            "{shell}"
        );
        assert_eq!(asked.offers(&["pipeline-state", "--format", "j"]), ["json"], "{shell}");
        assert!(
            asked
                .offers(&["pipeline-state", "lock", "release", ""])
                .contains(&"--token".to_owned()),
            "{shell}"
        );
    }
    assert!(sandbox.snapshot().is_empty(), "asking makes nothing");
}

#[test]
fn locks_checkpoints_and_backups_of_the_root_are_offered() {
    let sandbox = Sandbox::initialized();
    let _holder = sandbox.holder("deploy,build");
    let id = sandbox.ok("recover checkpoint first-step").replace("Checkpoint created: ", "");
    sandbox.ok("state backup keep");
    let backup = sandbox.shelf("state-").pop().unwrap();
    let before = sandbox.snapshot();
    for asked in shells(&sandbox) {
        let shell = asked.shell;
        for command in ["release", "check", "break", "renew", "acquire", "run"] {
            assert_eq!(
                asked.offers(&["pipeline-state", "lock", command, ""]),
                ["build", "deploy"],
                "{shell} {command}"
            );
        }
        assert_eq!(
            asked.offers(&["pipeline-state", "lock", "release", "de"]),
            ["deploy"],
            "{shell}"
        );
        assert_eq!(
            asked.offers(&["pipeline-state", "lock", "release", "build,"]),
            ["build,deploy"],
            "{shell}"
        );
        for command in ["restore", "show", "verify"] {
            assert_eq!(
                asked.offers(&["pipeline-state", "recover", command, ""]),
                [id.as_str()],
                "{shell} {command}"
            );
        }
        assert_eq!(
            asked.offers(&["pipeline-state", "recover", "restore", "--latest", "f"]),
            ["first-step"],
            "{shell}"
        );
        for command in ["recover", "diff"] {
            assert_eq!(
                asked.offers(&["pipeline-state", "state", command, "st"]),
                [backup.as_str()],
                "{shell} {command}"
            );
        }
    }
    assert!(sandbox.snapshot() == before, "asking changes nothing");
}

#[test]
fn the_root_is_the_one_that_the_line_names() {
    let sandbox = Sandbox::initialized();
    let _holder = sandbox.holder("deploy");
    let root = sandbox.path().to_str().unwrap();
    let elsewhere = Sandbox::empty();
    for asked in shells(&elsewhere) {
        assert_eq!(
            asked.offers(&["pipeline-state", "--root", root, "lock", "check", "d"]),
            ["deploy"],
            "{}",
            asked.shell
        );
        let joined = format!("--root={root}");
        // bash splits it
        let option =
            if asked.shell == "bash" { vec!["--root", "=", root] } else { vec![joined.as_str()] };
        for words in [
            [&option[..], &["lock", "check", "d"]],
            [&["lock", "check"], &[&option[..], &["d"]].concat()],
        ] {
            let line = [&["pipeline-state"], words[0], words[1]].concat();
            assert_eq!(asked.offers(&line), ["deploy"], "{}: {line:?}", asked.shell);
        }
        assert_eq!(
            asked.offers(&["pipeline-state", "lock", "check", "d"]),
            [""; 0],
            "{}",
            asked.shell
        );
        // bash and zsh pass the line as typed, with quotes
        for typed in [format!("'{root}'"), format!("\"{root}\""), root.replace('-', "\\-")] {
            let line = ["pipeline-state", "--root", &typed, "lock", "check", "d"];
            assert!(
                asked.shell == "fish" || asked.offers(&line) == ["deploy"],
                "{}: {typed}",
                asked.shell
            );
        }
    }
}

/// Creates names that a shell could misread beside good ones, which are offered.
fn with_odd_names(sandbox: &Sandbox) {
    let id = sandbox.ok("recover checkpoint good").replace("Checkpoint created: ", "");
    sandbox.ok("state backup keep");
    for name in [
        "checkpoint-20260101-000000-a b$(touch PWNED)",
        "checkpoint-20260102-000000-a;touch PWNED",
        "checkpoint-2\n3",
    ] {
        let (from, to) =
            (sandbox.file(".checkpoints").join(&id), sandbox.file(".checkpoints").join(name));
        assert!(sandbox.program("cp").arg("-r").args([from, to]).status().unwrap().success());
    }
    let shelf = sandbox.file(".state-backups");
    for name in
        ["state-20260101-000000-r1-a`touch PWNED`.json", "state-20260101-000000-r1-a\nb.json"]
    {
        std::fs::copy(sandbox.state(), shelf.join(name)).unwrap();
    }
}

#[test]
fn a_name_that_a_shell_could_read_something_into_is_not_offered() {
    let sandbox = Sandbox::initialized();
    with_odd_names(&sandbox);
    let plain =
        |word: &String| word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    for asked in shells(&sandbox) {
        for (words, last) in
            [(["recover", "show", ""], "good"), (["state", "recover", ""], "keep.json")]
        {
            let offered = asked.offers(&[&["pipeline-state"], &words[..]].concat());
            assert!(offered.iter().all(plain), "{}: {offered:?}", asked.shell);
            assert!(
                offered.len() == 1 && offered[0].ends_with(last),
                "{}: {offered:?}",
                asked.shell
            );
        }
    }
}

#[test]
fn bash_completions_run_nothing_but_the_typed_line() {
    if !installed("script") {
        return;
    }
    let sandbox = Sandbox::initialized();
    with_odd_names(&sandbox);
    std::fs::write(sandbox.file("odd $(touch PWNED)"), "{}").unwrap();
    let keys = "source <($PIPELINE_BINARY completions bash)\n\
                pipeline-state recover show checkpoint-20260101\t\n\
                pipeline-state state validate od\t; echo \"ended: $?\"\n\
                exit\n";
    std::fs::write(sandbox.file("keys"), keys).unwrap();
    let bin = sandbox.file("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let line = "exec script -qec 'bash --norc --noprofile -i' /dev/null <keys";
    let ran = Ran::of(
        sandbox
            .program("bash")
            .env("PATH", path)
            .env("TERM", "xterm")
            .args(["-c", line])
            .output()
            .unwrap(),
    );
    assert!(!sandbox.file("PWNED").exists(), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("odd\\ \\$\\(touch\\ PWNED\\)"),
        "bash quotes the file's name: {}",
        ran.stdout
    );
    assert!(ran.stdout.contains("ended: "), "{}", ran.stdout);
}

#[test]
fn zsh_completes_the_names_of_files_itself_wherever_they_may_stand() {
    if !installed("zsh") || !installed("script") {
        return;
    }
    let sandbox = Sandbox::initialized();
    sandbox.run("state read").expect(0);
    std::fs::copy(sandbox.state(), sandbox.file("document one.json")).unwrap();
    let bin = sandbox.file("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let keys = "autoload -Uz compinit; compinit -u -d dump; source <($PIPELINE_BINARY completions \
                zsh)\n\
                pipeline-state state validate ~/docu\t; echo \"ended: $?\"\n\
                pipeline-state lock run x -- cat ~/docu\t >copy; echo \"ended: $?\"\n\
                exit\n";
    std::fs::write(sandbox.file("keys"), keys).unwrap();
    let mut command = sandbox.program("bash");
    command.env("PATH", path).env("HOME", sandbox.path()).env("TERM", "xterm");
    let ran = Ran::of(
        command.args(["-c", "exec script -qec 'zsh -f -i' /dev/null <keys"]).output().unwrap(),
    );
    assert_eq!(ran.stdout.matches("ended: 0").count(), 2, "{}", ran.stdout);
    assert_eq!(
        std::fs::read(sandbox.file("copy")).unwrap(),
        std::fs::read(sandbox.state()).unwrap()
    );
}

#[test]
fn fish_completes_file_names_in_quotes_and_after_dashes() {
    if !installed("fish") {
        return;
    }
    let sandbox = Sandbox::initialized();
    std::fs::write(sandbox.file("document one.json"), "{}").unwrap();
    let bin = sandbox.file("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for line in [
        "state write docu",
        "state write \"docu",
        "state write 'docu",
        "lock run x -- cat docu",
        "--state-file docu",
    ] {
        let script =
            "pipeline-state completions fish | source; complete -C \"pipeline-state $argv[1]\"";
        let mut command = sandbox.program("fish");
        command.env("PATH", &path).env("HOME", sandbox.path()).args(["-c", script, "--", line]);
        assert_eq!(Ran::of(command.output().unwrap()).stdout, "document one.json\n", "{line}");
    }
}

#[test]
fn completions_need_an_explicit_request() {
    let sandbox = Sandbox::initialized();
    for (variable, words) in
        [("bash", "state phase"), ("sh", "-- state phase"), ("", "-- state phase")]
    {
        let mut command = sandbox.command();
        let ran = Ran::of(
            command
                .env("PIPELINE_STATE_COMPLETE", variable)
                .args(words.split(' '))
                .output()
                .unwrap(),
        );
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "pre-init\n"), "{variable} {words}");
    }
    sandbox.run("completions powershell").expect(64);
}

// ---- the manual ----

#[test]
fn every_command_has_a_page_that_is_set_without_a_warning() {
    let sandbox = Sandbox::empty();
    sandbox.run("man pages").expect(5).saying("mkdir -p pages");
    std::fs::create_dir(sandbox.file("pages")).unwrap();
    sandbox.run("man pages").expect(0);
    let pages = sandbox.names("pages");
    for page in [
        "pipeline-state.1",
        "pipeline-state-lock.1",
        "pipeline-state-state-update.1",
        "pipeline-state-man.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page} is not in {pages:?}");
    }
    assert!(!pages.iter().any(|name| name.contains("pause")));
    let main = std::fs::read_to_string(sandbox.file("pages/pipeline-state.1")).unwrap();
    assert_eq!(sandbox.run("man").expect(0).stdout, main);
    sandbox.run("man pages/pipeline-state.1").expect(5).saying("is not a directory");
    if !installed("groff") {
        return;
    }
    for page in pages {
        let page = sandbox.file("pages").join(page);
        let ran = Ran::of(
            sandbox
                .program("groff")
                .args(["-man", "-Tutf8", "-ww", "-P-cbou"])
                .arg(&page)
                .output()
                .unwrap(),
        );
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", page.display());
        assert!(
            ["SYNOPSIS", "DESCRIPTION"].iter().any(|head| ran.stdout.contains(head)),
            "{}",
            page.display()
        );
    }
    let update = sandbox.file("pages/pipeline-state-state-update.1");
    let text = Ran::of(
        sandbox.program("groff").args(["-man", "-Tascii", "-P-cbou"]).arg(update).output().unwrap(),
    )
    .stdout;
    assert!(
        text.contains(
            "\n         pipeline-state state update '.owner = $who' --arg who \"$USER\"\n"
        ),
        "{text}"
    );
}
