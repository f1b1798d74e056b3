//! Which pages there are, and what a reader has before each begins.

use std::{fs, io::Write, path::Path};

use super::reading::{Begin, follow};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `README.md`, the chart's, and all pages of `docs/`.
pub fn pages() -> Vec<String> {
    let names = fs::read_dir(root().join("docs")).expect("docs/").map(|file| file.expect("readable").file_name());
    let names = names.map(|name| name.into_string().expect("text")).filter(|name| name.ends_with(".md"));
    let mut pages: Vec<_> = names.map(|name| format!("docs/{name}")).collect();
    pages.sort();
    pages.extend(["README.md", "charts/pat-operator/README.md"].map(str::to_owned));
    pages
}

/// Pages that another test follows, which applies and types all of it: which.
pub const ELSEWHERE: [(&str, &str); 1] = [("docs/gitops.md", "tests/ecosystem/gitops/mod.rs")];

/// One test for each page; all of them are in `FOLLOWED`.
macro_rules! followed {
    ($($name:ident: $page:literal, $begin:ident;)*) => {
        const FOLLOWED: &[&str] = &[$($page),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                follow($page, Begin::$begin).await;
            }
        )*
    };
}

followed! {
    the_readme_can_be_followed: "README.md", Nothing;
    the_index_can_be_followed: "docs/README.md", Nothing;
    the_page_on_the_chart_can_be_followed: "charts/pat-operator/README.md", Nothing;
    the_page_on_the_rest_api_can_be_followed: "docs/api.md", Installed;
    the_page_on_api_versions_can_be_followed: "docs/api-versions.md", Nothing;
    the_concepts_can_be_followed: "docs/concepts.md", Installed;
    the_page_on_conditions_can_be_followed: "docs/conditions.md", Installed;
    the_design_notes_can_be_followed: "docs/design-notes.md", Nothing;
    the_page_on_dialects_can_be_followed: "docs/dialects.md", Nothing;
    getting_started_can_be_followed: "docs/getting-started.md", Nothing;
    the_glossary_can_be_followed: "docs/glossary.md", Nothing;
    the_page_on_guard_rails_can_be_followed: "docs/guard-rails.md", Chart;
    the_page_on_kubectl_pat_can_be_followed: "docs/kubectl-pat.md", Chart;
    the_page_on_metrics_can_be_followed: "docs/metrics.md", Nothing;
    the_page_on_migration_can_be_followed: "docs/migration.md", Installed;
    the_page_on_operations_can_be_followed: "docs/operations.md", Velero;
    the_page_on_performance_can_be_followed: "docs/performance.md", Nothing;
    the_reference_can_be_followed: "docs/reference.md", Nothing;
    the_page_on_running_by_hand_can_be_followed: "docs/running.md", Nothing;
    the_page_on_security_can_be_followed: "docs/security.md", Nothing;
    the_page_on_verifying_can_be_followed: "docs/verifier.md", Installed;
}

#[test]
fn every_page_is_followed() {
    for page in pages() {
        if let Some((page, test)) = ELSEWHERE.iter().find(|(elsewhere, _)| **elsewhere == page) {
            assert!(root().join(test).is_file(), "{page} is followed by {test}, which is not there");
            let _ = writeln!(std::io::stderr(), "FOLLOWED: {page}: by {test}");
        } else {
            assert!(
                FOLLOWED.contains(&&*page),
                "{page}: nobody follows it; say in tests/ecosystem/reader/pages.rs what a reader has before it begins"
            );
        }
    }
}
