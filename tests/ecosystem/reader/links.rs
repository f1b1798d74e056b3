//! Checks links and names: each link has a target, the index lists each page, and the tests that docs/security.md names exist. Also checks
//! that no file of the repository contains conflict markers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::pages::{ELSEWHERE, pages, root};
use crate::support::fences;

/// The targets of all links and pictures of a text, except those in code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let targets = plain.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(targets.map(str::to_owned));
    }
    found
}

/// The anchors of all headings, as GitHub forms them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = text.lines().filter(move |line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#')
    });
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn each_link_has_a_target() {
    for page in pages() {
        let text = fences::read(&page);
        for link in links(&text) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(&page).parent().expect("a folder");
            let target = if file.is_empty() { PathBuf::from(&page) } else { folder.join(file) };
            let there = root().join(&target);
            // Another test checks these pages.
            if ELSEWHERE.iter().any(|(page, _)| target == Path::new(page)) {
                continue;
            }
            assert!(there.exists(), "{page}: {link} does not exist");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(there).expect("a page"));
                assert!(
                    anchors.contains(anchor),
                    "{page}: {} has no heading for {link}: {anchors:?}",
                    target.display()
                );
            }
        }
    }
}

#[test]
fn index_lists_each_page() {
    let index: BTreeSet<_> = links(&fences::read("docs/README.md")).into_iter().collect();
    for page in pages() {
        let Some(name) = page.strip_prefix("docs/").filter(|name| *name != "README.md") else { continue };
        assert!(index.contains(name), "docs/README.md has no link to {name}");
    }
}

/// For each threat, `docs/security.md` names a test.
#[test]
fn security_page_names_existing_tests() {
    let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in ["src", "tests"] {
        tests_in(&root().join(folder), &mut known);
    }
    let text = fences::read("docs/security.md");
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let is_test = word.matches('_').count() >= 4
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if is_test {
            named += 1;
            assert!(known.contains_key(word), "docs/security.md: there is no test {word}");
        }
    }
    assert!(named >= 20, "{named}");
    // Each threat has at least one test.
    let threats = text.lines().filter(|line| is_threat(line));
    for threat in threats {
        assert!(threat.split('`').any(|word| known.contains_key(word)), "no test for the threat: {threat}");
    }
}

/// Whether a line is the table row of a threat.
fn is_threat(line: &str) -> bool {
    line.strip_prefix("| T").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The names of all tests, each with its file.
fn tests_in(folder: &Path, known: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if entry.file_name() != "target" {
                tests_in(&path, known);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            for (at, line) in lines.iter().enumerate() {
                let Some(name) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) else { continue };
                // The test attribute is above the function, possibly with other attributes or comments. This also holds in a proptest!.
                let above = lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//"));
                if above.into_iter().any(|line| line.contains("test]") || line.contains("test(")) {
                    known.insert(name.split('(').next().expect("a name").to_owned(), path.clone());
                }
            }
        }
    }
}

/// Whether a line is a conflict marker of git.
fn is_conflict_marker(line: &str) -> bool {
    line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") || line == "======="
}

#[test]
fn no_file_has_conflict_markers() {
    let (mut left, mut seen) = (Vec::new(), 0);
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable")) {
            let (path, type_) = (entry.path(), entry.file_type().expect("a type"));
            if type_.is_dir() {
                // Skip build output and third-party files.
                if !["target", ".git", "node_modules"].iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else if type_.is_file() {
                // Skip binary files.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                seen += 1;
                let lines = text.lines().zip(1..).filter(|(line, _)| is_conflict_marker(line));
                left.extend(lines.map(|(_, number)| format!("{}:{number}", path.display())));
            }
        }
    }
    assert!(seen > 300, "{seen}");
    assert!(left.is_empty(), "resolve these conflicts: {left:#?}");
}

#[test]
fn conflict_markers_are_recognised() {
    for (line, is) in [
        ("<<<<<<< HEAD", true),
        ("=======", true),
        (">>>>>>> branch", true),
        ("========", false),
        ("<<< \"$token\"", false),
        ("    <<<<<<< HEAD", false),
        (">>>>>>>", false),
    ] {
        assert_eq!(is_conflict_marker(line), is, "{line}");
    }
}
