//! The fenced blocks of a documentation page, and the comments that say what the tests do with them.

use std::{fs, path::Path};

/// The meaning of a comment `<!-- test: … -->` before a block. A block may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `skip because …`: the block cannot run in a test.
    Skip(String),
    /// `shows <file>`: the block is a part of that file, which another test uses.
    Shows(String),
    /// `save as <file>`: the reader writes the block to that file, for later commands.
    SaveAs(String),
    /// `spec`: the block is the spec of a PersonalAccessToken. The API server accepts it.
    Spec,
    /// `values`: Helm renders the chart with these values.
    Values,
    /// `values of <name>`: Helm renders the chart with the values below this key, as in a parent chart.
    ValuesOf(String),
    /// `part of a Pod`: the block is the spec of a Pod without containers. The API server accepts it.
    PartOfAPod,
    /// `schema of <project>`: the block is checked against the schema that this project publishes.
    SchemaOf(String),
    /// `as <user>`: the user who runs the commands. The user has all rights in the page's namespaces, and none elsewhere.
    As(String),
}

impl Mark {
    fn read(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim().to_owned();
        Some(match word {
            "skip" => Self::Skip(rest.strip_prefix("because ").filter(|why| !why.is_empty())?.to_owned()),
            "shows" if !rest.is_empty() => Self::Shows(rest),
            "save" => Self::SaveAs(rest.strip_prefix("as ").filter(|name| !name.contains('/'))?.to_owned()),
            "schema" => Self::SchemaOf(rest.strip_prefix("of ")?.to_owned()),
            "values" if !rest.is_empty() => Self::ValuesOf(rest.strip_prefix("of ")?.to_owned()),
            "as" if !rest.is_empty() => Self::As(rest),
            _ => match text {
                "spec" => Self::Spec,
                "values" => Self::Values,
                "part of a Pod" => Self::PartOfAPod,
                _ => return None,
            },
        })
    }
}

/// One fenced block.
#[derive(Clone, Debug)]
pub struct Fence {
    /// `docs/page.md:12`.
    pub place: String,
    pub language: String,
    pub text: String,
    pub marks: Vec<Mark>,
}

impl Fence {
    /// The file that the block is a part of.
    pub fn shows(&self) -> Option<&str> {
        self.marks.iter().find_map(|mark| if let Mark::Shows(file) = mark { Some(&**file) } else { None })
    }

    /// Whether the block has this mark.
    pub fn is(&self, mark: &Mark) -> bool {
        self.marks.contains(mark)
    }
}

/// The text of a file of the repository.
pub fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All blocks of a page, from top to bottom.
pub fn of(page: &str) -> Vec<Fence> {
    parse(page, &read(page)).unwrap_or_else(|error| panic!("{error}"))
}

/// Parses all blocks of a text. `page` is its name in errors.
pub fn parse(page: &str, text: &str) -> Result<Vec<Fence>, String> {
    let (mut fences, mut marks): (Vec<Fence>, Vec<Mark>) = Default::default();
    let mut lines = text.lines().zip(1..);
    let mut before = "";
    while let Some((line, number)) = lines.next() {
        let place = format!("{page}:{number}");
        let (trimmed, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if let Some(comment) = trimmed.strip_prefix("<!-- test:") {
            let comment =
                comment.strip_suffix("-->").ok_or_else(|| format!("{place}: write the test comment on one line"))?;
            let mark =
                Mark::read(comment.trim()).ok_or_else(|| format!("{place}: unknown test comment {comment:?}"))?;
            marks.push(mark);
        } else if let Some(language) = trimmed.strip_prefix("```") {
            let mut text = String::new();
            loop {
                let (line, _) = lines.next().ok_or_else(|| format!("{place}: the fenced block has no end"))?;
                if line.trim() == "```" {
                    break;
                }
                let blank = line.len().min(indent);
                if !line[..blank].trim().is_empty() {
                    return Err(format!("{place}: indent each line at least as far as its fence: {line}"));
                }
                text.push_str(&line[blank..]);
                text.push('\n');
            }
            fences.push(Fence { place, language: language.to_owned(), text, marks: std::mem::take(&mut marks) });
        } else if !trimmed.is_empty() {
            if !marks.is_empty() {
                return Err(format!("{place}: put the test comment directly before a fenced block"));
            }
            // Markdown renders an indented block as code too, but no test would run it. In a list, it is text.
            if indent >= 4 && before.is_empty() && !is_in_list(text, number) {
                return Err(format!("{place}: write code in a fenced block: {line}"));
            }
        }
        before = trimmed;
    }
    if marks.is_empty() { Ok(fences) } else { Err(format!("{page}: no fenced block follows the last test comment")) }
}

fn is_in_list(text: &str, number: usize) -> bool {
    let above: Vec<_> = text.lines().take(number - 1).collect();
    let line = above.iter().rev().find(|line| !line.is_empty() && !line.starts_with(' '));
    line.is_some_and(|line| line.starts_with("- ") || line.starts_with(|c: char| c.is_ascii_digit()))
}
