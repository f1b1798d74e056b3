//! Follows one page from top to bottom.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    background::{self, BackgroundPrograms, LongRunning},
    expected, schemas,
    shell::{Shell, Typed},
};
use crate::support::{
    chart::{
        helm::{NAMESPACE, Program, chart, root},
        velero::Velero,
    },
    fences::{self, Fence, Mark},
    process::{SOON, place::eventually},
};
use control_plane::{Binary, ControlPlane, Identity, Options};

/// The set-up of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A cluster without the operator.
    Nothing,
    /// A cluster without the operator, with Velero, which has only the rights that it needs.
    Velero,
    /// A cluster with the CRDs, a controller for all namespaces, and the namespaces of the pages.
    Installed,
    /// A cluster with the chart, its guard rails and verifier, and the namespaces of the pages. shop has a scope grant.
    Chart,
}

/// The namespaces that the pages use.
const NAMESPACES: [&str; 2] = ["shop", "team-a"];

/// What is done with a block.
enum Use {
    /// Its commands are run.
    Type,
    /// The commands after `$` are run, and their output is compared with the rest.
    Compare,
    /// It is a manifest, or what the comment before it says.
    Apply,
    /// It needs a comment that names its file, or says why not.
    Show,
    /// Nothing is done, for this reason.
    Nothing(&'static str),
}

/// The languages of blocks.
const LANGUAGES: [(&str, Use); 9] = [
    ("sh", Use::Type),
    ("console", Use::Compare),
    ("yaml", Use::Apply),
    ("json", Use::Show),
    ("nginx", Use::Show),
    ("caddyfile", Use::Show),
    ("lua", Use::Show),
    ("promql", Use::Nothing("queries that promtool tests")),
    ("text", Use::Nothing("to look at")),
];

/// Counts of what was done on a page.
#[derive(Default)]
struct Tally {
    done: BTreeMap<&'static str, usize>,
    skipped: Vec<String>,
}

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Prints the counts, even if the test passes.
    fn print(&self, page: &str) {
        let mut text = format!("FOLLOWED: {page}:");
        for (what, count) in &self.done {
            let _ = write!(text, " {count} {what}");
        }
        let _ = write!(text, " {} skipped", self.skipped.len());
        for skipped in &self.skipped {
            let _ = write!(text, "\nSKIPPED: {skipped}");
        }
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// A reader with a shell and a cluster.
struct Reader {
    background: BackgroundPrograms,
    shell: Shell,
    kubectl: Program,
    users: BTreeMap<String, String>,
    count: usize,
    velero: Option<Velero>,
    // Dropped last, because the programs above use it.
    plane: ControlPlane,
    _folder: tempfile::TempDir,
}

/// Follows a page. A page without commands and manifests needs no cluster.
pub async fn follow(page: &str, begin: Begin) {
    let mut tally = Tally::default();
    let mut reader: Option<Reader> = None;
    for fence in fences::of(page) {
        let skips = fence.marks.iter().find_map(|mark| if let Mark::Skip(why) = mark { Some(why) } else { None });
        let (_, use_) = LANGUAGES
            .iter()
            .find(|(language, _)| *language == fence.language)
            .unwrap_or_else(|| panic!("{}: unknown language {:?}", fence.place, fence.language));
        if let Some(why) = skips {
            tally.skipped.push(format!("{}: because {why}", fence.place));
        } else if let Some(file) = fence.shows() {
            assert!(is_part_of(&fence.text, &fences::read(file)), "{}: the block is not a part of {file}", fence.place);
            tally.count("shown");
        } else if let Use::Nothing(why) = use_ {
            tally.count(why);
        } else if let Use::Show = use_ {
            panic!("{}: add a comment that names the file it shows, or a reason to skip it", fence.place);
        } else {
            let reader = match &mut reader {
                Some(reader) => reader,
                none => none.insert(Reader::begin(begin).await),
            };
            match use_ {
                Use::Type => reader.run_block(&fence).await,
                Use::Compare => reader.compare(&fence).await,
                _ => reader.apply(&fence).await,
            }
            tally.count(match use_ {
                Use::Apply => "manifests",
                _ => "typed",
            });
        }
    }
    tally.print(page);
}

/// Whether these lines occur in a file in this order, possibly indented.
fn is_part_of(part: &str, whole: &str) -> bool {
    let (part, whole): (Vec<_>, Vec<_>) = (part.lines().collect(), whole.lines().collect());
    whole.windows(part.len()).any(|window| {
        let indent = window[0].len().saturating_sub(part[0].len());
        window.iter().zip(&part).all(|(line, part)| {
            part.is_empty() && line.trim().is_empty()
                || line.len() >= indent && line[..indent].trim().is_empty() && line[indent..] == **part
        })
    })
}

#[test]
fn page_is_parsed_into_blocks() {
    let page = "# Page\n\n<!-- test: as jane@example.com -->\n<!-- test: spec -->\n```sh\na\n\nb\n```\n\n- x:\n\n  ```yaml\n  c: d\n  ```\n";
    let read = fences::parse("p.md", page).expect("a page");
    let [sh, yaml] = &read[..] else { panic!("two: {read:?}") };
    assert_eq!((&*sh.place, &*sh.language, &*sh.text), ("p.md:5", "sh", "a\n\nb\n"));
    assert_eq!(sh.marks, [Mark::As("jane@example.com".into()), Mark::Spec]);
    assert_eq!((&*yaml.language, &*yaml.text, yaml.marks.len()), ("yaml", "c: d\n", 0));
}

#[test]
fn blocks_that_no_test_would_run_are_errors() {
    for (page, part) in [
        ("```sh\na", "has no end"),
        ("<!-- test: skip -->\n```sh\n```", "unknown test comment"),
        ("<!-- test: skip because -->\n```sh\n```", "unknown test comment"),
        ("<!-- test: nonsense -->\n```sh\n```", "unknown test comment"),
        ("<!-- test: spec -->\nwords\n```sh\n```", "directly before a fenced block"),
        ("<!-- test: spec -->\n", "no fenced block follows"),
        ("words\n\n    kubectl get pat\n", "in a fenced block"),
    ] {
        let error = fences::parse("p.md", page).expect_err(part);
        assert!(error.contains(part), "{page}: {error}");
    }
}

#[test]
fn part_of_a_file_is_found_at_any_indentation() {
    let whole = "a:\n  b:\n    c: d\n\n    e: f\ng: h\n";
    for (part, is_part) in
        [("a:\n  b:\n", true), ("b:\n  c: d\n\n  e: f\n", true), ("b:\n c: d\n", false), ("c: d\ne: f\n", false)]
    {
        assert_eq!(is_part_of(part, whole), is_part, "{part:?}");
    }
}

impl Reader {
    async fn begin(begin: Begin) -> Self {
        let options = Options::default();
        let is_ours = matches!(begin, Begin::Installed | Begin::Chart);
        let options = if is_ours { options.apply(root().join("crds")) } else { options };
        let plane = ControlPlane::start(options).await.expect("a control plane");
        let folder = tempfile::Builder::new().prefix("pat-reader-").tempdir().expect("a folder");
        let store = folder.path().join("store");
        fs::create_dir(&store).expect("a folder");
        let velero = if begin == Begin::Velero { Some(Velero::start(&plane.access(), &store).await) } else { None };
        let mut reader = Self {
            background: BackgroundPrograms::new(plane.access(), folder.path()),
            shell: tokio::task::block_in_place(|| Shell::open(folder.path(), &plane.admin_kubeconfig())),
            kubectl: Program::new(Binary::Kubectl, Some(plane.admin_kubeconfig())),
            users: BTreeMap::new(),
            count: 0,
            velero,
            plane,
            _folder: folder,
        };
        if is_ours {
            for namespace in NAMESPACES {
                reader.kubectl.prints(&["create", "namespace", namespace]);
            }
        }
        match begin {
            Begin::Nothing | Begin::Velero => {}
            Begin::Installed => {
                reader.kubectl.prints(&["create", "namespace", NAMESPACE]);
                let flags = ["--leader-elect=false", "--health-addr=127.0.0.1:8080"].map(str::to_owned);
                reader.background.start(LongRunning::Program("controller", flags.into())).await;
            }
            Begin::Chart => {
                let helm = Program::new(Binary::Helm, Some(reader.plane.admin_kubeconfig()));
                let chart = chart();
                let chart = chart.to_str().expect("text");
                let values = ["crds.enabled=false", "verifier.enabled=true", "verifier.tls.insecure=true"];
                let grant = ["--set-json", r#"scopeGrants={"shop": ["packages:write"]}"#];
                let values = [values.map(|value| ["--set", value]).concat(), grant.to_vec()].concat();
                let install = ["install", "pat-operator", chart, "--namespace", NAMESPACE, "--create-namespace"];
                helm.prints(&[&install[..], &values].concat());
                reader.background.follow_release().await;
                reader.wait_for_guard_rails().await;
            }
        }
        reader
    }

    /// The policies and their parameters take effect a moment after they are created.
    async fn wait_for_guard_rails(&mut self) {
        let user = Program::new(Binary::Kubectl, Some(self.user("somebody@example.com").into()));
        let folder = tempfile::tempdir().expect("a folder");
        let is_admitted = |file: &str, spec: &str| {
            let path = folder.path().join(file);
            let pat = format!(
                "{{apiVersion: pat-operator.io/v1alpha1, kind: PersonalAccessToken, metadata: {{name: probe}}, spec: {spec}}}"
            );
            fs::write(&path, pat).expect("a manifest");
            let path = path.to_str().expect("text");
            user.run(&["--namespace", NAMESPACES[0], "create", "--dry-run=server", "--filename", path]).status.success()
        };
        eventually("the guard rails are in force", async || {
            is_admitted("granted.yaml", "{scopes: [packages:write]}")
                && !is_admitted("withheld.yaml", "{scopes: [probe]}")
                && !is_admitted("owned.yaml", "{owner: {kind: User, name: jane@example.com}}")
        })
        .await;
    }

    /// Runs commands as the user that the block names.
    fn typed(&mut self, fence: &Fence, text: &str) -> Typed {
        let user =
            fence.marks.iter().find_map(|mark| if let Mark::As(user) = mark { Some(user.clone()) } else { None });
        tokio::task::block_in_place(|| {
            let Some(user) = user else { return self.shell.run(text) };
            let kubeconfig = self.user(&user);
            self.shell.run(&format!("export KUBECONFIG={kubeconfig}"));
            let typed = self.shell.run(text);
            self.shell.run(&format!("export KUBECONFIG={}", self.plane.admin_kubeconfig().display()));
            typed
        })
    }

    /// The kubeconfig of a user with all rights in the namespaces of the pages, and none elsewhere.
    fn user(&mut self, name: &str) -> String {
        if let Some(kubeconfig) = self.users.get(name) {
            return kubeconfig.clone();
        }
        for namespace in NAMESPACES {
            let role = ["create", "role", "everything", "--verb=*", "--resource=*.*", "--namespace", namespace];
            let core = ["create", "role", "core", "--verb=*", "--resource=*", "--namespace", namespace];
            let _there_already = (self.kubectl.run(&role), self.kubectl.run(&core));
            for role in ["everything", "core"] {
                let (binding, role, user) =
                    (format!("{role}-{}", self.users.len()), format!("--role={role}"), format!("--user={name}"));
                self.kubectl.prints(&["create", "rolebinding", &binding, &role, &user, "--namespace", namespace]);
            }
        }
        let kubeconfig =
            self.plane.kubeconfig_for(&Identity::user(name, &[])).expect("a kubeconfig").display().to_string();
        self.users.insert(name.to_owned(), kubeconfig.clone());
        kubeconfig
    }

    async fn run_block(&mut self, fence: &Fence) {
        // `date` prints whole seconds. A token issued in the current second would not count as issued before it, so wait for the next one.
        if fence.text.contains("date -u") {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
            tokio::time::sleep(Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into())).await;
        }
        let (ends, long_running) = background::split(&fence.text);
        if !ends.trim().is_empty() {
            let text = self.background.address(&ends);
            let typed = self.typed(fence, &text);
            assert_ne!(
                typed.code, 127,
                "{}: unknown command; add it to tests/ecosystem/reader/tools.rs\n{}",
                fence.place, typed.printed
            );
            let place = &fence.place;
            assert_eq!(typed.code, 0, "{place}: exit code {}\n{text}\n--- printed:\n{}", typed.code, typed.printed);
            self.after(&ends).await;
        }
        if let Some(long_running) = long_running {
            self.background.start(long_running).await;
        }
    }

    /// Does what a kubelet would do after these commands.
    async fn after(&mut self, text: &str) {
        if ["helm install", "helm upgrade", "helm rollback", "helm uninstall"]
            .iter()
            .any(|command| text.contains(command))
        {
            self.background.follow_release().await;
        }
        if let Some(velero) = &mut self.velero
            && text.contains("rollout restart deployment velero")
        {
            velero.restart();
        }
    }

    async fn compare(&mut self, fence: &Fence) {
        for (command, shown) in commands(&fence.text) {
            let text = self.background.address(&command);
            let deadline = Instant::now() + SOON;
            loop {
                let typed = self.typed(fence, &text);
                let Some(difference) = expected::differs(&shown, &typed.printed) else { break };
                // Repeat commands that only read until the expected state is reached.
                let looks =
                    ["get", "describe", "events", "auth"].iter().any(|verb| text.contains(&format!(" {verb} ")));
                assert!(looks && Instant::now() < deadline, "{}: {command}\n{difference}", fence.place);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.after(&command).await;
        }
    }

    async fn apply(&mut self, fence: &Fence) {
        self.count += 1;
        let save_as =
            fence.marks.iter().find_map(|mark| if let Mark::SaveAs(name) = mark { Some(name.clone()) } else { None });
        let schema =
            fence.marks.iter().find_map(|mark| if let Mark::SchemaOf(who) = mark { Some(who.clone()) } else { None });
        let indented = |by: usize| fence.text.lines().map(|line| format!("{:by$}{line}\n", "")).collect::<String>();
        let (text, dry) = if fence.is(&Mark::Spec) {
            let head =
                "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata:\n  name: shown\nspec:\n";
            (format!("{head}{}", indented(2)), true)
        } else if fence.is(&Mark::PartOfAPod) {
            let head = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: shown\nspec:\n  serviceAccountName: app\n  containers: [{name: app, image: app}]\n";
            let _there_already = self.kubectl.run(&["create", "serviceaccount", "app"]);
            (format!("{head}{}", indented(2)), true)
        } else {
            (fence.text.clone(), false)
        };
        let name = save_as.clone().unwrap_or_else(|| format!("shown-{}.yaml", self.count));
        let file = self.shell.file(&name);
        fs::write(&file, &text).expect("a file");
        let below = fence.marks.iter().find_map(|mark| if let Mark::ValuesOf(name) = mark { Some(name) } else { None });
        if let Some(name) = below {
            let values: serde_json::Value = serde_yaml::from_str(&text).expect("YAML");
            fs::write(&file, values[name].to_string()).expect("a file");
        }
        if below.is_some() || fence.is(&Mark::Values) {
            let (helm, chart) = (Program::helm(), chart());
            let (chart, file) = (chart.to_str().expect("text").to_owned(), file.to_str().expect("text").to_owned());
            helm.prints(&["template", "pat-operator", &chart, "--namespace", NAMESPACE, "--values", &file]);
            return;
        }
        let documents = crate::support::chart::helm::manifests(&text);
        if let Some(who) = schema {
            schemas::check(&fence.place, &who, &documents).await;
            return;
        }
        for document in &documents {
            assert!(
                document["apiVersion"].is_string() && document["kind"].is_string(),
                "{}: not a manifest: {document}",
                fence.place
            );
        }
        if save_as.is_some() {
            return;
        }
        let how = if dry { "--dry-run=server" } else { "" };
        let typed = self.typed(fence, &format!("kubectl apply {how} --validate=strict -f '{name}'"));
        assert_eq!(typed.code, 0, "{}: {}\n{text}", fence.place, typed.printed);
    }
}

/// The commands of a block, each with its expected output.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut goes_on, mut until) = (false, None);
    for line in text.lines() {
        if goes_on || until.is_some() {
            let (command, _) = found.last_mut().expect("a command precedes this line");
            let _ = write!(command, "\n{line}");
            goes_on = line.ends_with('\\');
            until = until.filter(|end| *end != line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            found.push((command.to_owned(), String::new()));
            goes_on = command.ends_with('\\');
            until = heredoc(command);
        } else {
            let (_, shown) = found.last_mut().expect("a block starts with a command");
            shown.push_str(line);
            shown.push('\n');
        }
    }
    found
}

/// The end marker of a here-document (`<<END`), but not of a here-string (`<<< text`).
fn heredoc(command: &str) -> Option<&str> {
    let (_, end) = command.split_once("<<")?;
    if end.starts_with('<') { None } else { end.split_whitespace().next() }
}

#[test]
fn console_block_is_split_into_commands_and_output() {
    let found = commands("$ kubectl get \\\n    pat\nNAME\nci\n$ cat <<< x\nx\n$ cat <<END | jq\n1\nEND\n1\n");
    let all = [("kubectl get \\\n    pat", "NAME\nci\n"), ("cat <<< x", "x\n"), ("cat <<END | jq\n1\nEND", "1\n")];
    assert_eq!(found, all.map(|(command, shown)| (command.to_owned(), shown.to_owned())));
}
