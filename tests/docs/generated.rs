//! What is generated and checked in equals what the code makes of it.

use std::{fs, path::Path};

use pat_operator::api::crd;

const COMMAND: &str = "make generate (or: cargo run --bin crdgen crds)";

#[test]
fn crds_is_what_crdgen_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = fs::read_dir(&folder).expect("crds/ is there");
    let mut files: Vec<_> = files.map(|file| file.expect("readable").file_name()).collect();
    files.sort();
    assert_eq!(files, crd::all().map(|(file, _)| file), "crdgen makes one file for each resource");

    for (file, crd) in crd::all() {
        let (made, kept) = (crd::yaml(&crd), fs::read_to_string(folder.join(file)).expect("readable"));
        if let Some(line) = first_difference(&made, &kept) {
            panic!("crds/{file} is not what the types say, from line {line} on; run: {COMMAND}");
        }
    }
}

#[test]
fn the_stream_of_all_is_the_files_one_after_the_other() {
    let parts: Vec<_> = crd::all_yaml().split("---\n").map(str::to_owned).collect();
    assert_eq!(parts, crd::all().map(|(_, crd)| crd::yaml(&crd)));
}

fn first_difference(one: &str, other: &str) -> Option<usize> {
    let same = one.split('\n').zip(other.split('\n')).take_while(|(one, other)| one == other).count();
    (one != other).then_some(same + 1)
}
