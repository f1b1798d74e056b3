//! Compares the generated CRDs in the repository with the code.

use std::{fs, path::Path};

use pat_operator::api::crd;

const COMMAND: &str = "make generate (or: cargo run --bin crdgen crds)";

#[test]
fn crds_match_crdgen() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = fs::read_dir(&folder).expect("the folder crds/ exists");
    let mut files: Vec<_> = files.map(|file| file.expect("readable").file_name()).collect();
    files.sort();
    assert_eq!(files, crd::all().map(|(file, _)| file), "one file for each resource");

    for (file, crd) in crd::all() {
        let (made, kept) = (crd::yaml(&crd), fs::read_to_string(folder.join(file)).expect("readable"));
        if let Some(line) = first_difference(&made, &kept) {
            panic!("crds/{file} is out of date from line {line}; run: {COMMAND}");
        }
    }
}

#[test]
fn all_yaml_concatenates_the_files() {
    let parts: Vec<_> = crd::all_yaml().split("---\n").map(str::to_owned).collect();
    assert_eq!(parts, crd::all().map(|(_, crd)| crd::yaml(&crd)));
}

fn first_difference(one: &str, other: &str) -> Option<usize> {
    let same = one.split('\n').zip(other.split('\n')).take_while(|(one, other)| one == other).count();
    (one != other).then_some(same + 1)
}
