//! The list of pages, and the set-up of each.

use std::{fs, io::Write, path::Path};

use super::reading::{Begin, follow};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `README.md`, the chart's README, and all pages of `docs/`.
pub fn pages() -> Vec<String> {
    let names = fs::read_dir(root().join("docs")).expect("docs/").map(|file| file.expect("readable").file_name());
    let names = names.map(|name| name.into_string().expect("text")).filter(|name| name.ends_with(".md"));
    let mut pages: Vec<_> = names.map(|name| format!("docs/{name}")).collect();
    pages.sort();
    pages.extend(["README.md", "charts/pat-operator/README.md"].map(str::to_owned));
    pages
}

/// Pages whose commands another test runs, and that test.
pub const ELSEWHERE: [(&str, &str); 1] = [("docs/gitops.md", "tests/ecosystem/gitops/mod.rs")];

/// Defines one test for each page, and the list `FOLLOWED` of all pages.
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
    readme_commands_work: "README.md", Nothing;
    index_commands_work: "docs/README.md", Nothing;
    chart_readme_commands_work: "charts/pat-operator/README.md", Nothing;
    api_page_commands_work: "docs/api.md", Installed;
    api_versions_page_commands_work: "docs/api-versions.md", Nothing;
    concepts_page_commands_work: "docs/concepts.md", Installed;
    conditions_page_commands_work: "docs/conditions.md", Installed;
    design_notes_commands_work: "docs/design-notes.md", Nothing;
    dialects_page_commands_work: "docs/dialects.md", Nothing;
    getting_started_commands_work: "docs/getting-started.md", Nothing;
    glossary_commands_work: "docs/glossary.md", Nothing;
    guard_rails_page_commands_work: "docs/guard-rails.md", Chart;
    issuer_argocd_page_commands_work: "docs/issuer-argocd.md", Nothing;
    issuer_cryptlex_page_commands_work: "docs/issuer-cryptlex.md", Nothing;
    issuer_gitea_page_commands_work: "docs/issuer-gitea.md", Nothing;
    issuer_gitlab_page_commands_work: "docs/issuer-gitlab.md", Nothing;
    issuer_sailpoint_page_commands_work: "docs/issuer-sailpoint.md", Nothing;
    issuer_truefoundry_page_commands_work: "docs/issuer-truefoundry.md", Nothing;
    issuers_page_commands_work: "docs/issuers.md", Nothing;
    kubectl_pat_page_commands_work: "docs/kubectl-pat.md", Chart;
    metrics_page_commands_work: "docs/metrics.md", Nothing;
    migration_page_commands_work: "docs/migration.md", Installed;
    new_issuer_page_commands_work: "docs/new-issuer.md", Nothing;
    operations_page_commands_work: "docs/operations.md", Velero;
    performance_page_commands_work: "docs/performance.md", Nothing;
    reference_commands_work: "docs/reference.md", Nothing;
    running_page_commands_work: "docs/running.md", Nothing;
    security_page_commands_work: "docs/security.md", Nothing;
    verifier_page_commands_work: "docs/verifier.md", Installed;
}

#[test]
fn each_page_has_a_reader_test() {
    for page in pages() {
        if let Some((page, test)) = ELSEWHERE.iter().find(|(elsewhere, _)| **elsewhere == page) {
            assert!(root().join(test).is_file(), "{page}: its test {test} does not exist");
            let _ = writeln!(std::io::stderr(), "FOLLOWED: {page}: by {test}");
        } else {
            assert!(
                FOLLOWED.contains(&&*page),
                "{page}: no test follows it; add it to tests/ecosystem/reader/pages.rs"
            );
        }
    }
}
