//! What the packages are made from: metadata, pages, completions, workflows. `tests/package.sh`
//! makes and tries them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::{BINARY, Ran, Sandbox};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

fn metadata(tool: &str) -> Value {
    let words = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let mut cargo = std::process::Command::new(env!("CARGO"));
    let ran = Ran::of(cargo.args(words).current_dir(repository()).output().unwrap()).expect(0);
    ran.json()["packages"][0]["metadata"][tool].clone()
}

/// A root in which the program is called by its name, as an installed one is.
fn by_name(sandbox: &Sandbox, words: &[&str]) -> Ran {
    let bin = sandbox.file("bin");
    fs::create_dir_all(&bin).unwrap();
    if !bin.join("pipeline-state").exists() {
        std::os::unix::fs::symlink(BINARY, bin.join("pipeline-state")).unwrap();
    }
    let mut command = sandbox.program("env");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    Ran::of(command.arg("pipeline-state").args(words).output().unwrap())
}

/// What `tests/package.sh` puts into `target/package/stage`.
fn staged(sandbox: &Sandbox) -> Vec<PathBuf> {
    fs::create_dir(sandbox.file("man")).unwrap();
    by_name(sandbox, &["man", "man"]).expect(0);
    let pages = fs::read_dir(sandbox.file("man")).unwrap().map(|page| page.unwrap().file_name());
    let mut staged: Vec<_> =
        pages.map(|page| PathBuf::from(format!("man/{}.gz", page.to_str().unwrap()))).collect();
    let names = ["pipeline-state.bash", "_pipeline-state", "pipeline-state.fish"];
    staged.extend(names.map(|name| Path::new("completions").join(name)));
    staged.push("THIRD-PARTY".into());
    staged
}

#[test]
fn what_the_deb_lists_is_there_and_all_that_is_made_is_listed() {
    let sandbox = Sandbox::empty();
    let made = staged(&sandbox);
    assert!(made.len() > 50, "{made:?}");
    let mut listed = Vec::new();
    for asset in metadata("deb")["assets"].as_array().unwrap() {
        let asset: Vec<&str> = asset.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let [source, target, mode] = asset[..] else { panic!("{asset:?}") };
        assert_eq!(mode, if target == "usr/bin/" { "755" } else { "644" });
        if let Some(staged) = source.strip_prefix("target/package/stage/") {
            let (head, end) = staged.split_once('*').unwrap_or((staged, ""));
            let before = listed.len();
            let is_meant = |path: &&PathBuf| {
                let path = path.to_str().unwrap();
                if staged.contains('*') {
                    path.starts_with(head) && path.ends_with(end)
                } else {
                    path == staged
                }
            };
            listed.extend(made.iter().filter(is_meant).cloned());
            assert!(listed.len() > before, "{source} is not made");
        } else if source != "target/release/pipeline-state" {
            let place = repository().join(source.replace("*.md", "contract.md"));
            assert!(place.is_file(), "{source}");
        }
    }
    let missing: Vec<_> = made.iter().filter(|path| !listed.contains(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn installed_completions_call_the_program_by_its_name() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = by_name(&sandbox, &["completions", shell]).expect(0).stdout;
        assert!(script.contains("pipeline-state"), "{shell}");
        assert!(!script.contains("/pipeline-state"), "{shell}: {script}");
    }
}

/// What cargo-binstall loads is what `tests/package.sh` makes.
#[test]
fn the_tarball_has_the_name_that_installers_ask_for() {
    let binstall = metadata("binstall");
    let asked = binstall["pkg-url"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(asked, "{ name }-{ version }-{ target }{ archive-suffix }");
    assert_eq!(
        binstall["bin-dir"].as_str(),
        Some("{ name }-{ version }-{ target }/{ bin }{ binary-ext }")
    );
    let script = text("tests/package.sh");
    assert!(script.contains("stem=$name-$version-$target\n"));
    assert!(script.contains("$stem.tar.gz"));
    let formula = text("docs/packaging/pipeline-state.rb");
    let holes = formula.split('@').skip(1).step_by(2);
    for hole in holes.filter(|hole| hole.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
        assert!(script.contains(&format!("s|@{hole}@|")), "{hole} is not filled in");
    }
}

#[test]
fn what_the_workflows_run_is_there() {
    for workflow in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        let text = text(workflow);
        let scripts = text.split_whitespace().filter(|word| {
            word.starts_with(".ci/") || word.starts_with("tests/") && word.ends_with(".sh")
        });
        let mut seen = 0;
        for script in scripts {
            let mode = repository().join(script).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{workflow}: {script} cannot be run");
            seen += 1;
        }
        assert!(seen > 0, "{workflow}");
    }
    assert!(text("LICENSE").starts_with("MIT License"));
}
