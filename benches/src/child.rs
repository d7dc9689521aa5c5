//! Servers that we start, and that must not outlive us: a stopped one, or one that polls under a
//! real-time policy, would hold ports, memory or a whole core, and nobody would know whose it is.

use std::ffi::OsStr;
use std::process::Command;

/// A command whose process runs on these cores, and is killed when the thread that spawns it ends,
/// however that comes about. So spawn it from one that stays.
///
/// Util-linux does both before it becomes the program, which keeps the process number.
pub(crate) fn command(program: impl AsRef<OsStr>, cores: &[usize]) -> Command {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &cores.join(",")]);
    command.arg(program);
    command
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_server_is_gone_when_who_started_it_is() {
        let start = || {
            let child = command("sleep", &[0]).arg("60").spawn().unwrap();
            // From then on it dies with us.
            let name = format!("/proc/{}/comm", child.id());
            while fs::read_to_string(&name).unwrap() != "sleep\n" {
                thread::yield_now();
            }
            child
        };
        let mut child = thread::scope(|scope| scope.spawn(start).join()).unwrap();
        // A minute later it would end well.
        let status = child.wait().unwrap();
        assert!(!status.success(), "{status}");
    }
}
