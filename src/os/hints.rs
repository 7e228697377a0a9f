//! Commands of the system that messages suggest, and the names of its facilities in them.

/// The words of one system. In a command `{}` stands for a path, quoted for a shell.
struct Words {
    processes: &'static str,
    notifications: &'static str,
    mount_of: &'static str,
    look_at_processes: &'static str,
    look_at_hiding: [&'static str; 2],
    look_at_flags: &'static str,
    remove_flags: &'static str,
    look_at_clock: &'static str,
    look_at_watches: [&'static str; 2],
    look_at_ends: [&'static str; 2],
}

const LINUX: Words = Words {
    processes: "/proc",
    notifications: "inotify",
    mount_of: "findmnt -T {}",
    look_at_processes: "ls -d /proc/self; findmnt /proc",
    look_at_hiding: ["findmnt -o OPTIONS /proc", "hidepid=2 hides the processes of other users"],
    look_at_flags: "lsattr -d {}",
    remove_flags: "sudo chattr -ia {}",
    look_at_clock: "date -u; timedatectl",
    look_at_watches: [
        "sysctl fs.inotify",
        "see how many watches a user may have; other programs may use them up",
    ],
    look_at_ends: ["uname -r", "pidfds came with 5.3; a sandbox may deny them"],
};

const DARWIN: Words = Words {
    processes: "sysctl kern.proc.pid",
    notifications: "kqueue",
    mount_of: "df {}; mount",
    look_at_processes: "ps -p 1 -o pid,lstart",
    look_at_hiding: ["ps -p 1 -o pid,lstart", "a sandbox may hide the processes outside it"],
    look_at_flags: "ls -ldO {}",
    remove_flags: "sudo chflags nouchg,nouappnd,noschg,nosappnd {}",
    look_at_clock: "date -u; sntp time.apple.com",
    look_at_watches: ["ulimit -n", "each watched file takes a descriptor"],
    look_at_ends: ["ps -p 1 -o pid,lstart", "a sandbox may deny events of processes"],
};

const HERE: Words = if cfg!(target_os = "macos") { DARWIN } else { LINUX };

/// What shows processes.
pub const PROCESSES: &str = HERE.processes;
/// What notifies of changes in directories.
pub const NOTIFICATIONS: &str = HERE.notifications;
/// Shows whether processes can be seen at all.
pub const LOOK_AT_PROCESSES: &str = HERE.look_at_processes;
/// Shows why a process cannot be seen, and what that shows.
pub const LOOK_AT_HIDING: [&str; 2] = HERE.look_at_hiding;
/// Shows the time, and whether it is kept right.
pub const LOOK_AT_CLOCK: &str = HERE.look_at_clock;

/// Shows why changes of files may not be reported, and what that shows.
pub const LOOK_AT_WATCHES: [&str; 2] = HERE.look_at_watches;
/// Shows why the ends of processes may not be reported, and what that shows.
pub const LOOK_AT_ENDS: [&str; 2] = HERE.look_at_ends;

/// Shows the mount that a path lies on.
pub fn mount_of(path: &str) -> String {
    HERE.mount_of.replace("{}", path)
}

/// Shows whether a file is immutable or append-only.
pub fn look_at_flags(path: &str) -> String {
    HERE.look_at_flags.replace("{}", path)
}

/// Makes a file that was immutable or append-only changeable.
pub fn remove_flags(path: &str) -> String {
    HERE.remove_flags.replace("{}", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hint_of_a_mac_names_what_only_linux_has() {
        let all = |words: &Words| {
            let Words { mount_of, look_at_flags, remove_flags, .. } = words;
            for command in [mount_of, look_at_flags, remove_flags] {
                assert!(command.contains("{}"), "{command}");
            }
            [
                words.processes,
                words.notifications,
                mount_of,
                look_at_flags,
                remove_flags,
                words.look_at_processes,
                words.look_at_clock,
            ]
            .join("\n")
                + &words.look_at_hiding.concat()
                + &words.look_at_watches.concat()
                + &words.look_at_ends.concat()
        };
        let of_linux =
            ["findmnt", "/proc", "lsattr", "chattr", "timedatectl", "inotify", "hidepid", "pidfd"];
        for word in of_linux {
            assert!(all(&LINUX).contains(word), "{word}");
            assert!(!all(&DARWIN).contains(word), "{word}");
        }
    }
}
