//! Files that are made from code, checked in, and compared: `make generate` writes them anew, by UPDATE_DOCS.
//!
//! It must not know what is in them.

use std::{env, fs, path::Path};

/// Whether what is made is to be written.
pub fn is_update() -> bool {
    env::var_os("UPDATE_DOCS").is_some_and(|value| !value.is_empty())
}

/// The file, by its path in the repository, is what the code makes; or becomes it.
pub fn compare(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if is_update() {
        fs::write(&path, made).unwrap_or_else(|error| panic!("{file} cannot be written: {error}"));
    }
    let present = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}; make generate"));
    if present == made {
        return;
    }
    let mut lines = present.lines().zip(made.lines()).enumerate();
    let first = lines.find(|(_, (present, made))| present != made);
    let (line, (present, made)) = first.unwrap_or((0, ("the end", "more, or less")));
    panic!(
        "{file} is not what the code makes: `make generate`, and read the difference. It begins in line {} with\n  the file: \
         {present}\n  the code: {made}",
        line + 1
    );
}
