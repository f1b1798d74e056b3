//! The reader's shell. One shell runs all blocks of a page, so that variables persist.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::tools;

/// A running shell. It is killed on drop.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    count: usize,
}

/// The result of a block.
pub struct Typed {
    pub code: i32,
    /// stdout and stderr, in order.
    pub printed: String,
}

/// Runs each block as a file. A failed command ends the block, as it would stop a careful reader.
const LOOP: &str = r#"set -o pipefail
while IFS= read -r block; do
    trap 'return $?' ERR
    source "$block" >"$block.out" 2>&1 </dev/null
    code=$?
    trap - ERR
    echo "$code"
done
"#;

impl Shell {
    /// Starts a shell in a folder with links to folders of the repository.
    pub fn open(folder: &Path, kubeconfig: &Path) -> Self {
        let (bin, home, here) = (folder.join("bin"), folder.join("home"), folder.join("here"));
        tools::folder(&bin);
        for made in [&home, &here] {
            fs::create_dir_all(made).expect("a folder");
        }
        for name in ["crds", "charts", "examples"] {
            let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            std::os::unix::fs::symlink(there, here.join(name)).expect("a link");
        }
        let script = folder.join("loop.sh");
        fs::write(&script, LOOP).expect("a script");
        let mut command = Command::new(bin.join("bash"));
        command.args(["--norc", "--noprofile"]).arg(script);
        command.env_clear().env("PATH", &bin).env("HOME", &home).env("KUBECACHEDIR", folder.join("cache"));
        command.env("KUBECONFIG", kubeconfig).env("TMPDIR", folder).env("LC_ALL", "C.UTF-8").current_dir(here);
        let log = File::create(folder.join("shell.log")).expect("a log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = control_plane::spawn(command).expect("bash starts");
        let (input, output) =
            (child.stdin.take().expect("stdin is piped"), child.stdout.take().expect("stdout is piped"));
        Self { child, input, answers: BufReader::new(output), folder: folder.to_owned(), count: 0 }
    }

    /// Runs a block, and waits for its end.
    pub fn run(&mut self, text: &str) -> Typed {
        self.count += 1;
        let block = self.folder.join(format!("block-{}.sh", self.count));
        fs::write(&block, text).expect("a file");
        writeln!(self.input, "{}", block.display()).expect("the shell reads its stdin");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the shell answers");
        let out = block.with_extension("sh.out");
        let printed = String::from_utf8_lossy(&fs::read(&out).unwrap_or_default()).into_owned();
        // Without an answer, the shell has exited.
        Typed { code: answer.trim().parse().unwrap_or(-1), printed }
    }

    /// The path of a file in the shell's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("here").join(name)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn block_ends_at_a_failed_command_and_variables_persist() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut shell = Shell::open(folder.path(), Path::new("/nonexistent"));
    let typed = shell.run("word='two words'\necho one\nfalse | tr a b\necho never");
    assert_eq!((typed.code, typed.printed.trim()), (1, "one"));
    let typed = shell.run("if false; then echo no; fi\nfalse || true\necho \"$word\"");
    assert_eq!((typed.code, typed.printed.trim()), (0, "two words"));
    let typed = shell.run("no-such-command");
    assert_eq!(typed.code, 127, "{}", typed.printed);
    let typed = shell.run("cut -c1-3 crds/tokenowners.yaml | sha256sum; x=$(false); echo never");
    assert_eq!((typed.code, typed.printed.lines().count()), (1, 1), "{}", typed.printed);
}
