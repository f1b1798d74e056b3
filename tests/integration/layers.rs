//! The layers of `src`: a module that uses another one outside its row of the table fails the test.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module with the modules that it may use, from the bottom of the layering to its top.
const LAYERS: &[(&str, &[&str])] = &[
    ("token", &[]),
    ("api", &["token"]),
    ("service", &[]),
    ("issuer", &["api", "service", "token"]),
    ("secret", &["api", "token"]),
    ("auth", &["api", "token"]),
    ("index", &["api", "auth", "service", "token"]),
    ("planner", &["api", "auth", "secret", "token"]),
    ("certificates", &["service"]),
    ("controller", &["api", "issuer", "planner", "secret", "service", "token"]),
    ("verifier", &["api", "auth", "index", "service", "token"]),
    ("rest", &["api", "auth", "index", "service", "token"]),
    ("cli", &["api", "certificates", "service", "verifier"]),
    ("plugin", &["api", "auth", "certificates", "cli", "controller", "planner", "secret", "service", "token"]),
    ("programs", &["api", "certificates", "cli", "controller", "index", "planner", "rest", "service", "verifier"]),
    ("main", &["cli", "programs"]),
    ("bin", &["api", "plugin"]),
];

#[test]
fn modules_use_only_modules_below_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeSet::new();
    let mut modules = BTreeSet::new();
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).expect("a file of src").to_string_lossy().into_owned();
        // It only declares the modules.
        if name == "lib.rs" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("text");
        let module = layer_of(&name);
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) else {
            panic!("src/{name}: module {module} is not in the table of layers");
        };
        let used = uses(&text).into_iter().filter(|used| *used != module && !allowed.contains(&&**used));
        wrong.extend(used.map(|used| format!("src/{name}: {module} must not use {used}")));
        modules.insert(module);
    }
    assert!(wrong.is_empty(), "arrows that the table of layers does not allow:\n{}", Vec::from_iter(wrong).join("\n"));
    let unknown: Vec<_> = LAYERS.iter().map(|(layer, _)| *layer).filter(|layer| !modules.contains(*layer)).collect();
    assert!(unknown.is_empty(), "layers without a file: {unknown:?}");
}

#[test]
fn the_table_of_layers_has_no_arrow_up() {
    let mut below = BTreeSet::new();
    for (module, allowed) in LAYERS {
        for used in *allowed {
            assert!(below.contains(used), "{module} uses {used}, which is not below it");
        }
        below.insert(module);
    }
}

#[test]
fn use_trees_are_read() {
    let text = r#"
        use crate::{
            api::{StoredPat, Time},
            auth::{decision::Decision, verdict::{Terms, Verdict},},
            service,
        };
        pub(super) use pat_operator::index::Index;
        // crate::plugin is only mentioned.
        fn f(x: crate::token::Token) -> &'static str { "pat_operator::controller=debug" }
    "#;
    let expected = ["api", "auth", "index", "service", "token"].map(str::to_owned);
    assert_eq!(uses(text), BTreeSet::from(expected));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The layer of a file: its top module.
fn layer_of(name: &str) -> String {
    let top = name.split('/').next().unwrap_or(name);
    top.trim_end_matches(".rs").to_owned()
}

/// The modules of this crate that a file names, in `use` declarations and in paths.
fn uses(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(without_strings).collect();
    let mut used = BTreeSet::new();
    for root in ["crate::", "pat_operator::"] {
        for (at, _) in code.match_indices(root) {
            let is_path = code[..at]
                .chars()
                .next_back()
                .is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':');
            if is_path {
                used.extend(heads(&code[at + root.len()..]));
            }
        }
    }
    used
}

/// A line without string literals, whose content is no code.
fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"") + "\n"
}

/// The layers that a path, or a braced list of paths, begins with.
fn heads(tree: &str) -> Vec<String> {
    branches(tree).into_iter().filter_map(head).collect()
}

/// The paths of a braced list, or the path itself.
fn branches(tree: &str) -> Vec<&str> {
    let Some(list) = tree.trim_start().strip_prefix('{') else { return vec![tree] };
    let (mut depth, mut start, mut branches) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                branches.push(&list[start..at]);
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    branches
}

/// The module that a path begins with; `None` for a macro or an item of the crate's root.
fn head(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(path.len());
    LAYERS.iter().find(|(layer, _)| *layer == &path[..end]).map(|(layer, _)| (*layer).to_owned())
}
