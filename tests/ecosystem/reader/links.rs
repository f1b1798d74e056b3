//! Whether the pages hang together: every link leads somewhere, every page is in the index, and what a page names is there. And that no file of the
//! repository, page or not, has both sides of a merge in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::pages::{ELSEWHERE, pages, root};
use crate::support::fences;

/// The targets of all links and pictures of a text, without what stands between backquotes or fences.
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

/// What a heading is called in a link to it, as GitHub has it.
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
fn every_link_leads_to_something_that_is_there() {
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
            // Whoever follows them sees to it that they are there.
            if ELSEWHERE.iter().any(|(page, _)| target == Path::new(page)) {
                continue;
            }
            assert!(there.exists(), "{page}: nothing is at {link}");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(there).expect("a page"));
                assert!(anchors.contains(anchor), "{page}: {link} is no heading of {}: {anchors:?}", target.display());
            }
        }
    }
}

#[test]
fn the_index_has_every_page() {
    let index: BTreeSet<_> = links(&fences::read("docs/README.md")).into_iter().collect();
    for page in pages() {
        let Some(name) = page.strip_prefix("docs/").filter(|name| *name != "README.md") else { continue };
        assert!(index.contains(name), "docs/README.md has no link to {name}");
    }
}

/// `docs/security.md` names for each threat the test that tries it.
#[test]
fn every_test_that_the_threats_name_is_there() {
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
    // Every threat has at least one.
    let threats = text.lines().filter(|line| is_threat(line));
    for threat in threats {
        assert!(threat.split('`').any(|word| known.contains_key(word)), "no test is named: {threat}");
    }
}

/// A row that begins with a threat's number.
fn is_threat(line: &str) -> bool {
    line.strip_prefix("| T").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The names of all tests, with the file of each.
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
                // What marks it as a test stands above, with at most some other attributes between. Those in a proptest! have it as well.
                let above = lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//"));
                if above.into_iter().any(|line| line.contains("test]") || line.contains("test(")) {
                    known.insert(name.split('(').next().expect("a name").to_owned(), path.clone());
                }
            }
        }
    }
}

/// Whether a line is one that git writes between the sides of a merge that it could not decide.
fn is_of_a_merge(line: &str) -> bool {
    line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") || line == "======="
}

#[test]
fn no_file_has_what_git_leaves_of_a_merge_that_nobody_decided() {
    let (mut left, mut seen) = (Vec::new(), 0);
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable")) {
            let (path, type_) = (entry.path(), entry.file_type().expect("a type"));
            if type_.is_dir() {
                // What is built, and what others wrote: nothing of it is in the repository.
                if !["target", ".git", "node_modules"].iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else if type_.is_file() {
                // What is no text has no lines.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                seen += 1;
                let lines = text.lines().zip(1..).filter(|(line, _)| is_of_a_merge(line));
                left.extend(lines.map(|(_, number)| format!("{}:{number}", path.display())));
            }
        }
    }
    assert!(seen > 300, "{seen}");
    assert!(left.is_empty(), "decide these merges: {left:#?}");
}

#[test]
fn what_git_leaves_of_a_merge_is_told_from_what_looks_like_it() {
    for (line, is) in [
        ("<<<<<<< HEAD", true),
        ("=======", true),
        (">>>>>>> branch", true),
        ("========", false),
        ("<<< \"$token\"", false),
        ("    <<<<<<< HEAD", false),
        (">>>>>>>", false),
    ] {
        assert_eq!(is_of_a_merge(line), is, "{line}");
    }
}
