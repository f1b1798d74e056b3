//! Writes the CustomResourceDefinitions as YAML, one file each, into the given folder, or prints them without one. `make generate` runs
//! `cargo run --bin crdgen crds`.

use std::{env, fs, io, path::PathBuf};

use pat_operator::api::crd;

fn main() -> io::Result<()> {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        print!("{}", crd::all_yaml());
        return Ok(());
    };
    crd::all().iter().try_for_each(|(file, crd)| fs::write(folder.join(file), crd::yaml(crd)))
}
