//! The reader's terminal: one shell from the top of a page to its end, so that what was set stays set.
//!
//! It must not know what is typed.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::tools;

/// See the module; it ends with the value.
pub struct Shell {
    child: Child,
    input: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    count: usize,
}

/// What came of a block.
pub struct Typed {
    pub code: i32,
    /// What was printed, both ways, in its order.
    pub printed: String,
}

/// Each block runs as a file. A command that fails ends it, as it would stop a careful reader.
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
    /// Opens one in a folder that has links to what stands in the root of the repository.
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
        let (input, output) = (child.stdin.take().expect("an input"), child.stdout.take().expect("an output"));
        Self { child, input, answers: BufReader::new(output), folder: folder.to_owned(), count: 0 }
    }

    /// Types a block and waits for its end.
    pub fn run(&mut self, text: &str) -> Typed {
        self.count += 1;
        let block = self.folder.join(format!("block-{}.sh", self.count));
        fs::write(&block, text).expect("a file");
        writeln!(self.input, "{}", block.display()).expect("the shell listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the shell answers");
        let out = block.with_extension("sh.out");
        let printed = String::from_utf8_lossy(&fs::read(&out).unwrap_or_default()).into_owned();
        // Without an answer it has ended itself, by `exit`.
        Typed { code: answer.trim().parse().unwrap_or(-1), printed }
    }

    /// Where a file is that the reader writes.
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
fn a_block_ends_where_a_command_fails_and_what_was_set_stays_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut shell = Shell::open(folder.path(), Path::new("/nonexistent"));
    let typed = shell.run("word='two words'\necho one\nfalse | tr a b\necho never");
    assert_eq!((typed.code, typed.printed.trim()), (1, "one"));
    let typed = shell.run("if false; then echo no; fi\nfalse || true\necho \"$word\"");
    assert_eq!((typed.code, typed.printed.trim()), (0, "two words"));
    let typed = shell.run("nobody-knows-this");
    assert_eq!(typed.code, 127, "{}", typed.printed);
    let typed = shell.run("cut -c1-3 crds/tokenowners.yaml | sha256sum; x=$(false); echo never");
    assert_eq!((typed.code, typed.printed.lines().count()), (1, 1), "{}", typed.printed);
}
