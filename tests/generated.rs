//! What is generated and checked in equals what the code makes of it.

use std::{fs, path::Path};

const COMMAND: &str = "make generate (or: cargo run --bin crdgen > crds/personalaccesstokens.yaml)";

#[test]
fn crds_is_what_crdgen_prints() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let files = fs::read_dir(&folder).expect("crds/ is there");
    let files: Vec<_> = files.map(|file| file.expect("readable").file_name()).collect();
    assert_eq!(files, ["personalaccesstokens.yaml"], "crdgen makes one file");

    let (made, kept) = (pat_operator::api::crd::yaml(), fs::read_to_string(folder.join(&files[0])).expect("readable"));
    if let Some(line) = first_difference(&made, &kept) {
        panic!("crds/personalaccesstokens.yaml is not what the types say, from line {line} on; run: {COMMAND}");
    }
}

fn first_difference(one: &str, other: &str) -> Option<usize> {
    let same = one.split('\n').zip(other.split('\n')).take_while(|(one, other)| one == other).count();
    (one != other).then_some(same + 1)
}
