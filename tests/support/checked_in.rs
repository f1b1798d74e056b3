//! Compares generated files in the repository with the code that generates them. `make generate` sets UPDATE_DOCS to rewrite them.

use std::{env, fs, path::Path};

/// Whether generated files are to be rewritten.
pub fn is_update() -> bool {
    env::var_os("UPDATE_DOCS").is_some_and(|value| !value.is_empty())
}

/// Asserts that a file has this content. With UPDATE_DOCS, writes it first.
pub fn compare(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if is_update() {
        fs::write(&path, made).unwrap_or_else(|error| panic!("{file} cannot be written: {error}"));
    }
    let present = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}; run `make generate`"));
    if present == made {
        return;
    }
    let mut lines = present.lines().zip(made.lines()).enumerate();
    let first = lines.find(|(_, (present, made))| present != made);
    let (line, (present, made)) = first.unwrap_or((0, ("(end of file)", "(a different number of lines)")));
    panic!(
        "{file} is out of date: run `make generate`. The first difference is in line {}:\n  the file: \
         {present}\n  the code: {made}",
        line + 1
    );
}
