//! Prints the CustomResourceDefinitions as YAML: `cargo run --bin crdgen > crds/…` is what `make generate` does.

fn main() {
    print!("{}", pat_operator::api::crd::yaml());
}
